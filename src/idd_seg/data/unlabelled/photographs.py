"""Photographs without labels, in files of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.fingerprint import Fingerprint
from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Files, Item, spread
from idd_seg.data.unlabelled.names import Names
from idd_seg.errors import DataError

SAMPLE = 64  # files whose sizes are compared when a run resumes


class Unlabelled(ABC):
    """Photographs without labels, however they are stored; a source.

    Attributes:
        pixels: what their pixels hold.
    """

    names: Names
    pixels: Pixels = RGB

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def __getitem__(self, index: int) -> Item:
        """Return a photograph, without a label."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what messages call a photograph."""

    @abstractmethod
    def files(self, index: int) -> Files:
        """Return the file of a photograph, if it is one; it has no label."""

    @abstractmethod
    def key(self, index: int) -> str:
        """Return a text that is another one whenever the photograph would be."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Return which photographs these are, wherever they lie."""


def upright_in(pixels: Pixels) -> str:
    """Return how photographs are read, in a text for caches."""
    return "upright" if pixels.photograph else f"upright, {pixels}"


class Photographs(Unlabelled):
    """Photographs by their paths, turned as their EXIF tags say.

    Args:
        base: folder that the names are relative to; absolute ones stay.
    """

    def __init__(self, base: Path, names: Names) -> None:
        self.base, self.names = base, names

    def path(self, index: int) -> Path:
        """Return where a photograph lies."""
        return self.base / self.names[index]

    def __getitem__(self, index: int) -> Item:
        path = self.path(index)
        return Item(read_image(path, upright=True, pixels=self.pixels), None, str(path))

    def name(self, index: int) -> str:
        """Return the path, as messages have it."""
        return str(self.path(index))

    def files(self, index: int) -> Files:
        """Return the file of a photograph; it has no label."""
        return self.path(index), None

    def key(self, index: int) -> str:
        """Return path, size and time of the file."""
        path = self.path(index)
        try:
            state = path.stat()
        except OSError as error:
            raise DataError(f"{path}: the file can't be read ({error.strerror})") from error
        return f"{upright_in(self.pixels)}\n{path.absolute()}|{state.st_size}|{state.st_mtime_ns}"

    def fingerprint(self) -> Fingerprint:
        """Return a digest of all names, and the sizes of some of the files."""
        some = {self.names[index]: f"{self.path(index).stat().st_size}" for index in spread(len(self), SAMPLE)}
        return Fingerprint({f"{len(self)} photographs": self.names.digest(), **some})
