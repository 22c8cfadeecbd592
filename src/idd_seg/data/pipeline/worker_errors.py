"""What goes wrong with loader processes, said in words of the user."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from idd_seg.errors import DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.dataset import SegmentationDataset

SHARED = Path("/dev/shm")  # where batches pass from the loader processes to the training
LESS = "fewer of them (data.num_workers), a smaller data.batch_size, or data.cache=disk instead of ram may help"
MORE_SHARED = "give more (a container's --shm-size=8g, say), or take fewer processes (data.num_workers, 0 needs none)"
# PyTorch does not always know by which signal.
KILLED = (
    "a loader process was killed, as the system does with what takes too much memory, or ended by itself: "
    f"{LESS}; data.num_workers=0 loads in the training process, which shows what it meets. Where PyTorch speaks of a "
    f"bus error above, {SHARED} was full: {MORE_SHARED}. resume=auto goes on from the last checkpoint"
)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what PyTorch says of a loader process that was killed into a DataError with advice.

    PyTorch raises it from a signal handler, wherever the training stands.
    """
    try:
        yield
    except RuntimeError as error:
        found = _explanation(str(error))
        if found is None:
            raise
        raise DataError(found) from error


def _explanation(text: str) -> str | None:
    if "DataLoader worker" in text and "bus error" in text.lower():
        return f"a loader process found no room in {SHARED}{_free()}; {MORE_SHARED}"
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return KILLED
    return None


def _free() -> str:
    try:
        return f", where {shutil.disk_usage(SHARED).free / 1e6:.0f} MB are free"
    except OSError:
        return ""


def scarce(needed: int, processes: int) -> str | None:
    """Say that the memory shared with loader processes is too small for the batches on their way; None if it is not.

    Args:
        needed: bytes.
    """
    if not SHARED.is_dir():
        return None
    free = shutil.disk_usage(SHARED).free
    if free >= needed:
        return None
    return (
        f"{SHARED} has {free / 1e6:.0f} MB free, and the batches of {processes} loader processes on their way take "
        f"about {needed / 1e6:.0f} MB; {MORE_SHARED}"
    )


def warn_if_scarce(dataset: SegmentationDataset, batch_size: int, processes: int, pixel_bytes: int) -> None:
    """Warn before a training whose batches will not fit into the memory shared with loader processes.

    Args:
        pixel_bytes: of a pixel of an image, as it is passed.
    """
    crop = None if dataset.augmentation is None else dataset.augmentation.crop
    try:
        height, width = dataset.source[0].image.shape[:2] if crop is None else crop
    except DataError:
        return  # whoever reads it will say so
    scale = dataset.image_scale if crop is None else 1.0
    pixels = height * width * (1 + pixel_bytes * scale**2)  # the label's, and the image's bytes
    # Each process makes a batch while another one waits.
    if problem := scarce(int(2 * processes * batch_size * pixels), processes):
        warnings.warn(problem, stacklevel=4)
