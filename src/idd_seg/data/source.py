"""Where pictures come from: files or generators, one picture and its label at a time."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


class Item(NamedTuple):
    """A photograph (H, W, 3) uint8 RGB, its label (H, W) uint8 class ids, and a name for messages."""

    image: UInt8
    label: UInt8
    name: str


class Source(Protocol):
    """A finite list of items."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...
