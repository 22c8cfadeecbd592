"""Where pictures come from: files or generators, one picture and its label at a time."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


class Item(NamedTuple):
    """A photograph (H, W, 3) uint8 RGB, its label, and a name for messages.

    The label is as it stands in the file, (H, W) values or (H, W, 3) colours, uint8; None where there is none.
    """

    image: UInt8
    label: UInt8 | None
    name: str


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


class Part:
    """The items first to end - 1 of a source."""

    def __init__(self, source: Source, first: int, end: int) -> None:
        self.source, self.first, self.end = source, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> Item:
        return self.source[self.first + index]

    def name(self, index: int) -> str:
        """Return the item's name."""
        return self.source.name(self.first + index)

    def key(self, index: int) -> str:
        """Return the item's key."""
        return self.source.key(self.first + index)
