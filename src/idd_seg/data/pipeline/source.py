"""Where pictures come from: files or generators, one picture and its label at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Raster = NDArray[np.uint8 | np.uint16]  # (H, W, C): a picture of any number of channels


class Item(NamedTuple):
    """A picture, its label, and a name for messages.

    The picture is a photograph, (H, W, 3) uint8 RGB, or (H, W, C) uint8 or uint16 where `Pixels` says so.

    The label is as it stands in the file, (H, W) values or (H, W, 3) colours, uint8; None where there is none.
    """

    image: Raster
    label: UInt8 | None
    name: str


Files = tuple[Path | None, Path | None]


class Source(Protocol):
    """A finite list of items."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...

    def name(self, index: int) -> str:
        """Return the item's name, without reading the item."""
        ...

    def key(self, index: int) -> str:
        """Return a text that is another one whenever the item would be: for caches."""
        ...

    def files(self, index: int) -> Files:
        """Return the files that the item is read from: its photograph and its label, None for what is no file."""
        ...


def label_of(source: Source, index: int) -> UInt8 | None:
    """Return the label of an item, without its photograph where the source can."""
    read = getattr(source, "label", None)
    label: UInt8 | None = source[index].label if read is None else read(index)
    return label


class Around:
    """A source of the items of another one; a subclass changes how they are read, or which there are."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Item:
        return self.source[index]

    def label(self, index: int) -> UInt8 | None:
        """Return the item's label alone."""
        return label_of(self.source, index)

    def name(self, index: int) -> str:
        """Return the item's name, without reading the item."""
        return self.source.name(index)

    def key(self, index: int) -> str:
        """Return a text that is another one whenever the item would be."""
        return self.source.key(index)

    def files(self, index: int) -> Files:
        """Return the item's photograph and label, None for what is no file."""
        return self.source.files(index)


class Joined:
    """The items of one source, and behind them those of another."""

    def __init__(self, first: Source, second: Source) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def _at(self, index: int) -> tuple[Source, int]:
        behind = index - len(self.first)
        return (self.first, index) if behind < 0 else (self.second, behind)

    def __getitem__(self, index: int) -> Item:
        source, place = self._at(index)
        return source[place]

    def name(self, index: int) -> str:
        """Return the item's name, without reading the item."""
        source, place = self._at(index)
        return source.name(place)

    def key(self, index: int) -> str:
        """Return a text that is another one whenever the item would be."""
        source, place = self._at(index)
        return source.key(place)

    def files(self, index: int) -> Files:
        """Return the item's photograph and label, None for what is no file."""
        source, place = self._at(index)
        return source.files(place)


def innermost(source: Source) -> Source:
    """Return what the caches and parts around a source read from."""
    while isinstance(source, Around):
        source = source.source
    return source


class Part(Around):
    """The items of a source at some places."""

    def __init__(self, source: Source, places: Sequence[int]) -> None:
        super().__init__(source)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Item:
        return super().__getitem__(self.places[index])

    def label(self, index: int) -> UInt8 | None:
        return super().label(self.places[index])

    def name(self, index: int) -> str:
        return super().name(self.places[index])

    def key(self, index: int) -> str:
        return super().key(self.places[index])

    def files(self, index: int) -> Files:
        return super().files(self.places[index])


class Hidden(Around):
    """The items of a source without their labels."""

    def __getitem__(self, index: int) -> Item:
        image, _, name = super().__getitem__(index)
        return Item(image, None, name)

    def label(self, index: int) -> None:
        return None

    def key(self, index: int) -> str:
        return f"without label\n{super().key(index)}"

    def files(self, index: int) -> Files:
        return super().files(index)[0], None


def spread(length: int, most: int) -> list[int]:
    """Return up to `most` places, spread evenly over so many, the first and the last among them."""
    places: list[int] = np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()
    return places
