"""A look at the heads of pictures before a training: are they what the data say that they are?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from idd_seg.data.pipeline.decode import size_of
from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.data.pipeline.source import Source, spread
from idd_seg.errors import DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

MOST = 4096  # pictures of a split
READERS = 8  # files at once: most of the time is waiting for a disk


def read_head(source: Source, pixels: Pixels, index: int) -> None:
    """Read the head of a source's picture, if it is a file.

    Raises:
        DataError: if it can't be read, or holds other pixels.
    """
    path = source.files(index)[0]
    if path is not None:
        size_of(path, pixels=pixels)


def problems(read: Callable[[int], object], places: Sequence[int]) -> list[str]:
    """Return what is wrong where `read` raises a DataError, several places at once, in their order."""

    def problem(index: int) -> str | None:
        try:
            read(index)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READERS) as pool:
        return [text for text in pool.map(problem, places) if text is not None]


def look_at_pixels(data: SegmentationDataModule) -> None:
    """Look at the channels and bits of pictures that are no photographs, by their heads.

    Raises:
        DataError: that names the first file of another kind, and says how many there are.
    """
    if data.pixels.photograph:
        return
    for split in ("train", "val"):
        source = data.dataset(split).source
        places = spread(len(source), MOST)

        found = problems(partial(read_head, source, data.pixels), places)
        if found:
            more = f" ({len(found)} of the {len(places)} of '{split}' that were looked at)" if len(found) > 1 else ""
            raise DataError(f"{found[0]}{more}")
