"""What is looked at before a training on photographs without labels begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from idd_seg.data.augment import whole
from idd_seg.data.pipeline.heads import problems, read_head
from idd_seg.data.pipeline.pixels import RGB
from idd_seg.data.pipeline.source import Source, innermost, spread
from idd_seg.data.unlabelled.find import OPTION
from idd_seg.data.unlabelled.names import CHUNK
from idd_seg.data.unlabelled.photographs import Photographs
from idd_seg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

DECODED = 64  # photographs, spread over all, that are read as in training
HEADS = 4096  # whose heads are read
READERS = 8  # files at once: most of the time is waiting for a disk
NAMED = 3


def look_at_unlabelled(data: SegmentationDataModule) -> str | None:
    """Look for pictures without labels that are missing, can't be read, are masks, or don't fit into a batch.

    All files are asked for, the heads of `HEADS` are read, and `DECODED` are decoded.

    Returns:
        What should be known of them, if anything.

    Raises:
        DataError: that names the first that is wrong.
        ConfigError: for pictures of several sizes where they are not cropped to one.
    """
    outer = data.unlabelled_source()
    if outer is None:
        return None
    source = innermost(outer)
    found = {split: innermost(data.dataset(split).source) for split in ("train", "val")}
    pairs = {split: getattr(own, "pairs", []) for split, own in found.items()}
    if isinstance(source, Photographs):
        _refuse_missing(source)
        _refuse_masks(source, [pair.label for own in pairs.values() for pair in own if pair.label is not None])
    _refuse_unreadable(source)
    _refuse_sizes(data, source)
    if data.held_out is not None or not isinstance(source, Photographs):
        return None
    judged = _among(source, [pair.image for pair in pairs["val"]])
    if not judged:
        return None
    return (
        f"{OPTION} finds {len(judged)} photographs that the training is judged on: {_some(judged)}; scores may be too "
        "high"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _refuse_missing(source: Photographs) -> None:
    base = "" if source.base == Path() else str(source.base)

    def missing(first: int) -> list[str]:
        # `os.path`: a path object for each of a million takes longer than to ask for it.
        names = source.names.part(first, min(len(source), first + CHUNK))
        return [path for path in (os.path.join(base, name) for name in names) if not os.path.isfile(path)]  # noqa: PTH113,PTH118

    with ThreadPoolExecutor(READERS) as pool:
        found = [path for paths in pool.map(missing, range(0, len(source), CHUNK)) for path in paths]
    if found:
        raise DataError(f"{OPTION}: {len(found)} of {len(source)} photographs are not there: {_some(found)}")


def _refuse_masks(source: Photographs, labels: Iterable[Path]) -> None:
    if masks := _among(source, labels):
        raise DataError(
            f"{OPTION} finds {len(masks)} files that are masks of the data set: {_some(masks)}; name photographs "
            "alone, by another folder or ending"
        )


def _among(source: Photographs, paths: Iterable[Path]) -> list[str]:
    """Return which of some files are among the photographs, by their absolute paths."""
    wanted = {os.path.abspath(path) for path in paths}  # noqa: PTH100
    if not wanted:
        return []
    base, last = os.path.abspath(source.base), {os.path.basename(path) for path in wanted}  # noqa: PTH100, PTH119
    # Whole paths are made of the few that end alike: they take several times as long.
    alike = (name for name in source.names if name.rpartition("/")[2] in last)
    ours = (os.path.normpath(os.path.join(base, name)) for name in alike)  # noqa: PTH118
    return [path for path in ours if path in wanted]


def _refuse_unreadable(source: Source) -> None:
    _refuse(partial(read_head, source, getattr(source, "pixels", RGB)), spread(len(source), HEADS))
    _refuse(source.__getitem__, spread(len(source), DECODED))


def _refuse(read: Callable[[int], object], places: list[int]) -> None:
    if found := problems(read, places):
        more = f" ({len(found)} of the {len(places)} that were looked at can't be read)" if len(found) > 1 else ""
        raise DataError(f"{OPTION}: {found[0]}{more}")


def _refuse_sizes(data: SegmentationDataModule, source: Source) -> None:
    """Refuse pictures of several sizes where no crop makes them equal, by those that are decoded anyway."""
    if data.augment is not None and data.augment.crop is not None:
        return
    first = data.dataset("train").source[0].image.shape[:2]
    for index in spread(len(source), DECODED):
        image, _, name = source[index]
        if _size(image.shape, data.image_scale) != _size(first, data.image_scale):
            raise ConfigError(
                f"{OPTION}: '{name}' is {image.shape[1]} x {image.shape[0]} pixels, the first picture with labels "
                f"{first[1]} x {first[0]}, and pictures of one batch have one size; set data.augment.crop"
            )


def _size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    window = whole(shape[0], shape[1], scale)
    return window.out_height, window.out_width
