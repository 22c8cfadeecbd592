"""Which files a split consists of: told apart by names, sizes and checksums of labels, wherever the data set lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from idd_seg.data.pipeline.source import Source
from idd_seg.errors import DataError

TAIL = 64  # bytes at the end of a label file; of a PNG they hold the checksum of all its pixels
READERS = 8  # files at once: most of the time is waiting for a disk
SHOWN = 3


@dataclass(frozen=True)
class Fingerprint:
    """The items of a split.

    Attributes:
        items: name relative to the data set's root -> size of the photograph, size and checksum of the label.
    """

    items: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of all names, sizes and checksums, in their order."""
        return hashlib.sha256("\n".join(self.lines()).encode("utf-8", "surrogateescape")).hexdigest()

    def lines(self) -> Iterator[str]:
        """Return a line an item, from which `read` makes the same again."""
        return (f"{name}\t{state}" for name, state in self.items.items())

    @classmethod
    def read(cls, lines: Iterable[str]) -> Fingerprint:
        """Return what `lines` were written of."""
        pairs = (line.rstrip("\n").rpartition("\t") for line in lines)
        return cls({name: state for name, _, state in pairs})


def fingerprint(source: Source, root: Path | None) -> Fingerprint:
    """Return the fingerprint of a split.

    Args:
        root: of the data set, to which names are relative.

    Raises:
        DataError: for a file that can't be read.
    """
    with ThreadPoolExecutor(READERS) as pool:
        return Fingerprint(dict(pool.map(lambda index: _item(source, index, root), range(len(source)))))


def differences(before: Fingerprint, now: Fingerprint) -> str:
    """Say in words which items are missing, new or changed; empty if none."""
    found = {
        "missing": [name for name in before.items if name not in now.items],
        "new": [name for name in now.items if name not in before.items],
        "changed": [name for name, state in now.items.items() if before.items.get(name, state) != state],
    }
    if not any(found.values()) and list(before.items) != list(now.items):
        return "the same in another order"
    return "; ".join(f"{len(names)} {what} ({_some(names)})" for what, names in found.items() if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _item(source: Source, index: int, root: Path | None) -> tuple[str, str]:
    image, label = source.files(index)
    if image is None:  # it is made, not read: its key says all
        return source.key(index), "-"
    try:
        state = f"{image.stat().st_size}"
        if label is not None:
            with label.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - TAIL))
                state += f" {size} {hashlib.blake2b(file.read(), digest_size=8).hexdigest()}"
    except OSError as error:
        raise DataError(f"{error.filename}: the file can't be read ({error.strerror})") from error
    inside = root is not None and image.is_relative_to(root)
    return (image.relative_to(root) if inside and root is not None else image).as_posix(), state
