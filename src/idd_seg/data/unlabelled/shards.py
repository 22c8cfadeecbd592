"""Photographs in tar shards of WebDataset's layout, read at any place: by (seed, epoch, index) as files are.

The package `webdataset` streams: it goes through a shard from its beginning and shuffles what a buffer holds, so that
a picture could not be asked for by its index, and a run that was stopped would go on with other ones.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.decode import decode_image
from idd_seg.data.pipeline.files import is_hidden
from idd_seg.data.pipeline.fingerprint import Fingerprint
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES
from idd_seg.data.pipeline.source import Files, Item
from idd_seg.data.unlabelled.names import Names
from idd_seg.data.unlabelled.photographs import Unlabelled, upright_in
from idd_seg.data.unlabelled.tar_index import Member, members
from idd_seg.errors import DataError

READERS = 8  # shards at once: most of the time is waiting for a disk
OPEN = 128  # shards that a process holds open
INDEX = 1  # raised when what is kept of a shard changes


class Shards(Unlabelled):
    """The photographs of shards, in their order.

    Args:
        paths: of the shards.
        kept: folder in which the places of each shard's photographs are kept, for later runs and other processes; None
            finds them anew.

    Raises:
        DataError: for a shard that can't be read, or holds no photograph.
    """

    def __init__(self, paths: Sequence[Path], kept: Path | None = None) -> None:
        self.paths = list(paths)
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(lambda path: _index(path, kept), self.paths))
        self.names = Names(name for names, _ in found for name in names)
        self.shard = np.repeat(np.arange(len(found), dtype=np.int32), [len(names) for names, _ in found])
        self.places: NDArray[np.int64] = np.concatenate([places for _, places in found])
        self.opened: dict[int, int] = {}

    def __getitem__(self, index: int) -> Item:
        offset, size = (int(x) for x in self.places[index])
        path = self.paths[self.shard[index]]
        try:
            content = os.pread(self._file(int(self.shard[index])), size, offset)
        except OSError as error:
            raise DataError(f"{path}: the archive can't be read ({error.strerror})") from error
        name = self.name(index)
        return Item(decode_image(content, name, upright=True, pixels=self.pixels), None, name)

    def _file(self, shard: int) -> int:
        if shard not in self.opened:
            if len(self.opened) >= OPEN:
                os.close(self.opened.pop(next(iter(self.opened))))
            self.opened[shard] = os.open(self.paths[shard], os.O_RDONLY)
        return self.opened[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": {}}  # numbers of open files are of one process

    def name(self, index: int) -> str:
        """Return the shard and the photograph's name in it."""
        return f"{self.paths[self.shard[index]]}/{self.names[index]}"

    def files(self, index: int) -> Files:
        """Return nothing: the photograph is no file of its own."""
        return None, None

    def key(self, index: int) -> str:
        """Return shard, its size and time, and the place in it."""
        path = self.paths[self.shard[index]]
        return f"{upright_in(self.pixels)}\n{_state(path)}|{self.places[index].tolist()}"

    def fingerprint(self) -> Fingerprint:
        sizes = {path.name: f"{path.stat().st_size}" for path in self.paths}
        return Fingerprint({f"{len(self)} photographs": self.names.digest(), **sizes})


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: the archive can't be read ({error.strerror})") from error
    return f"{path.absolute()}|{state.st_size}|{state.st_mtime_ns}"


def _index(path: Path, kept: Path | None) -> tuple[Names, NDArray[np.int64]]:
    """Return which photographs a shard holds, as kept or by its headers."""
    digest = hashlib.blake2b(f"{INDEX}|{_state(path)}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    place = None if kept is None else kept / f"{digest}.npz"
    if place is not None and (known := _read(place)) is not None:
        return known
    found = _photographs(path)
    index = Names(member.name for member in found), np.array([member[1:] for member in found], np.int64)
    if place is not None:
        _write(place, *index)
    return index


def _photographs(path: Path) -> list[Member]:
    """Return the photographs of a shard: of each sample the one file whose whole ending is a picture's.

    A sample is what has one name up to the first dot, so that `a.seg.png` is no photograph.
    """
    found: dict[str, Member] = {}
    for member in members(path):
        folder, _, last = member.name.rpartition("/")
        stem, dot, ending = last.partition(".")
        if is_hidden(last) or f"{dot}{ending}".lower() not in IMAGE_SUFFIXES:
            continue
        key = f"{folder}/{stem}"
        if key in found:
            raise DataError(
                f"{path}: '{found[key].name}' and '{member.name}' are two pictures of one sample, and which is the "
                f"photograph is not known; call the other one as '{stem}.mask.{ending}'"
            )
        found[key] = member
    if not found:
        raise DataError(f"{path}: the archive holds no {', '.join(IMAGE_SUFFIXES)} files")
    return list(found.values())


def _read(place: Path) -> tuple[Names, NDArray[np.int64]] | None:
    """Return a kept index; None where there is none, or a damaged one."""
    try:
        with np.load(place, allow_pickle=False) as kept:
            names = Names.restored(kept["content"], kept["ends"])
            return names, kept["places"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(place: Path, names: Names, places: NDArray[np.int64]) -> None:
    """Keep an index, aside and renamed; where that can't be done it is found anew in each process."""
    draft = place.with_name(f".{place.stem}.{os.getpid()}.npz")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(draft, content=names.content, ends=names.ends, places=places)
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
