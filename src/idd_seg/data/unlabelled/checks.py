"""What is looked at before a training on photographs without labels begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from idd_seg.data.pipeline.decode import size_of
from idd_seg.data.pipeline.fingerprint import Fingerprint
from idd_seg.data.pipeline.source import Source
from idd_seg.data.unlabelled.find import OPTION
from idd_seg.data.unlabelled.photographs import Photographs
from idd_seg.errors import DataError

DECODED = 64  # photographs, spread over all, that are read as in training
HEADS = 4096  # whose heads are read
READERS = 8  # files at once: most of the time is waiting for a disk
CHUNK = 4096
NAMED = 3


def check(source: Source, labels: Iterable[Path], held_out: Iterable[Path]) -> str | None:
    """Look for photographs that are missing, can't be read, or are no photographs.

    Args:
        labels: files of masks.
        held_out: photographs that the training is judged on.

    Returns:
        What should be known, if anything.

    Raises:
        DataError: that names the first of them.
    """
    if isinstance(source, Photographs):
        _refuse_missing(source)
        masks = _among(source, labels)
        if masks:
            raise DataError(
                f"{OPTION} finds {len(masks)} files that are masks of the data set: {_some(masks)}; give photographs "
                "alone, e.g. by another folder or ending"
            )
    _refuse_unreadable(source)
    judged = _among(source, held_out) if isinstance(source, Photographs) else []
    if judged:
        return f"{OPTION} finds {len(judged)} photographs that the training is judged on: {_some(judged)}"
    return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _refuse_missing(source: Photographs) -> None:
    chunks = [range(first, min(len(source), first + CHUNK)) for first in range(0, len(source), CHUNK)]
    base = str(source.base)

    def missing(chunk: range) -> list[str]:
        # `os.path`: a path object for each of a million takes longer than to ask for it.
        paths = (os.path.join(base, source.names[index]) for index in chunk)  # noqa: PTH118
        return [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113

    with ThreadPoolExecutor(READERS) as pool:
        found = [path for paths in pool.map(missing, chunks) for path in paths]
    if found:
        raise DataError(f"{OPTION}: {len(found)} of {len(source)} photographs are not there: {_some(found)}")


def _among(source: Photographs, paths: Iterable[Path]) -> list[str]:
    """Return which of some files are among the photographs, by their absolute paths."""
    wanted = {os.path.abspath(path) for path in paths}  # noqa: PTH100
    if not wanted:
        return []
    base = os.path.abspath(source.base)  # noqa: PTH100
    return [path for path in (os.path.normpath(os.path.join(base, name)) for name in source.names) if path in wanted]  # noqa: PTH118


def spread(length: int, most: int) -> list[int]:
    """Return up to `most` places, spread evenly over so many."""
    places: list[int] = np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()
    return places


def _refuse_unreadable(source: Source) -> None:
    def head(index: int) -> None:
        path = source.files(index)[0]
        if path is not None:
            size_of(path)

    _try(head, spread(len(source), HEADS))
    _try(source.__getitem__, spread(len(source), DECODED))


def _try(read: Callable[[int], object], places: list[int]) -> None:
    def problem(index: int) -> str | None:
        try:
            read(index)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(READERS) as pool:
        found = [text for text in pool.map(problem, places) if text is not None]
    if found:
        more = f" ({len(found)} of the {len(places)} that were looked at can't be read)" if len(found) > 1 else ""
        raise DataError(f"{OPTION}: {found[0]}{more}")


def fingerprint(source: Photographs) -> Fingerprint:
    """Return which photographs these are: a digest of all names, and the sizes of some of the files."""
    return Fingerprint(dict(_items(source)))


def _items(source: Photographs) -> Iterator[tuple[str, str]]:
    yield f"{len(source)} photographs", source.digest()
    for index in spread(len(source), DECODED):
        yield source.names[index], f"{source.path(index).stat().st_size}"
