"""What downloading and unpacking share: a progress bar, checksums, room on the disk."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from idd_seg.errors import ConfigError, DataError

CHUNK = 1 << 20
LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64}  # hexadecimal digits
FULL = (errno.ENOSPC, errno.EDQUOT)

# From a title and the number of bytes, if it is known, to a function that is told how many are done.
Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def byte_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of bytes, with speed and remaining time."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def parse_checksum(checksum: str) -> tuple[str, str]:
    """Split `sha256:HEX` into algorithm and digits.

    Raises:
        ConfigError: for another algorithm, or other than its number of digits.
    """
    algorithm, _, digits = checksum.partition(":")
    if not re.fullmatch(f"[0-9a-f]{{{LENGTHS.get(algorithm, 0)}}}", digits.lower()) or algorithm not in LENGTHS:
        kinds = ", ".join(f"{name}:({length} digits)" for name, length in LENGTHS.items())
        raise ConfigError(f"a checksum is one of {kinds}, got '{checksum}'")
    return algorithm, digits.lower()


def digest(path: Path, algorithm: str = "sha256", bar: Bar = byte_bar) -> str:
    """Return the checksum of a file, as `algorithm:HEX`."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    done = 0
    with path.open("rb") as file, bar(f"checking {path.name}", path.stat().st_size) as advance:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            done += len(chunk)
            advance(done)
    return f"{algorithm}:{found.hexdigest()}"


def verify(path: Path, size: int | None, checksum: str | None, bar: Bar = byte_bar) -> None:
    """Compare a file with the size and the checksum that its owner gives, as far as they are known.

    Raises:
        DataError: that names the file, what was expected and what was found.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise DataError(f"'{path}' has {found} bytes, and the owner's file has {size}")
    if checksum is not None:
        algorithm, digits = parse_checksum(checksum)
        seen = digest(path, algorithm, bar)
        if seen != f"{algorithm}:{digits}":
            raise DataError(f"'{path}' is damaged or another file: its checksum is {seen}, the owner's {checksum}")


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise a DataError if the disk has not enough room.

    Args:
        folder: that will hold the bytes; it exists.
        needed: bytes.
        what: takes the room, for the message.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(no_room(folder, what, f"{needed} bytes ({needed / 1e9:.1f} GB) are needed"))


def no_room(folder: Path, what: str, needed: str) -> str:
    """Say that the disk is full, and what to do."""
    free = shutil.disk_usage(folder).free
    return (
        f"no room for {what}: {needed}, and '{folder}' has {free} bytes ({free / 1e9:.1f} GB) free; "
        "make room, or use a folder on another disk"
    )
