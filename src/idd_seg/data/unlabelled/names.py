"""Many paths in little memory, which processes share after a fork."""

from __future__ import annotations

import hashlib
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

CHUNK = 4096  # names that are unpacked at a time


class Names:
    """Texts one after the other in one array of bytes: a list of a million strings would take several times as much.

    Reference counts of strings would also be written in each loader process, which copies their memory.
    """

    def __init__(self, names: Iterable[str]) -> None:
        content, ends = bytearray(), array("q", [0])
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        self.content = np.frombuffer(bytes(content), np.uint8)
        self.ends = np.array(ends, np.int64)

    @classmethod
    def restored(cls, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> Names:
        """Return the names of the arrays that others hold.

        Raises:
            ValueError: if the arrays do not fit together.
        """
        if content.dtype != np.uint8 or ends.dtype != np.int64 or ends[0] != 0 or ends[-1] != len(content):
            raise ValueError("these are no names")
        names = cls(())
        names.content, names.ends = content, ends
        return names

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self.content[self.ends[index] : self.ends[index + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), CHUNK):
            yield from self.part(first, min(len(self), first + CHUNK))

    def part(self, first: int, end: int) -> list[str]:
        """Return the names first to end - 1: quicker than one by one."""
        ends = (self.ends[first : end + 1] - self.ends[first]).tolist()
        raw = self.content[self.ends[first] : self.ends[end]].tobytes()
        text = os.fsdecode(raw)
        if len(text) == len(raw):  # no letter takes several bytes
            return [text[start:stop] for start, stop in itertools.pairwise(ends)]
        return [os.fsdecode(raw[start:stop]) for start, stop in itertools.pairwise(ends)]

    def digest(self) -> str:
        """Return the SHA-256 of all names in their order."""
        return hashlib.sha256(self.content.tobytes() + self.ends.tobytes()).hexdigest()
