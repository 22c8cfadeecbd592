"""Downloading a file: resumed where it was interrupted, bounded, and verified before it gets its name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from idd_seg.data.download import http
from idd_seg.data.download.transfer import CHUNK, FULL, Bar, byte_bar, no_room, require_space, verify
from idd_seg.errors import DataError

HEADWAY = 1 << 20  # bytes that make a broken attempt a step ahead
LIMIT = 1 << 38  # bytes of a file whose length nobody says


class PartialFile:
    """What has come of a file so far, and which version of it that is."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> str | None:
        """Return the server's mark of the version that has begun to come from this address."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            found = notes["version"] if notes["url"] == url else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if isinstance(found, str) and found.isascii() and found.isprintable() else None

    def begin(self, url: str, version: str | None) -> None:
        self.remove()
        if version is not None:
            self.notes.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")

    def remove(self) -> None:
        # The notes go first: a part without them is never resumed.
        self.notes.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self.notes.unlink(missing_ok=True)


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    bar: Bar = byte_bar,
    attempts: int = 6,
    pause: float = 2.0,
    timeout: float = 60.0,
) -> None:
    """Download `url` to `target`, or go on where an earlier call was interrupted.

    The bytes go into `<target>.part`; it gets its name when size and checksum are right. A file that is there and
    right is not asked for again.

    Args:
        size: bytes of the file, if the owner gives them; no more are read.
        checksum: `md5:HEX`, `sha1:HEX` or `sha256:HEX`, if the owner gives one.
        attempts: in a row that may fail with next to nothing received; the pause doubles with each.
        pause: seconds before the second attempt.
        timeout: seconds without a byte that end an attempt.

    Raises:
        DataError: that names address and file, and says what to do.
    """
    http.require_http(url)
    if target.exists():
        try:
            return verify(target, size, checksum, bar)
        except DataError as error:
            raise DataError(f"{error}; remove it, and it is downloaded again") from error
    part = PartialFile(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _persist(url, part, size, bar, attempts, pause, timeout)
        _verify_part(url, part, size, checksum, bar)
        part.finish(target)
    except DataError as error:
        raise DataError(f"{error}; or download it yourself to '{target}'") from error
    except OSError as error:
        raise DataError(f"'{target}' can't be written ({error.strerror})") from error


def _persist(
    url: str, part: PartialFile, size: int | None, bar: Bar, attempts: int, pause: float, timeout: float
) -> None:
    failures = 0
    while True:
        before = part.size
        try:
            _receive(url, part, size, bar, timeout)
            return
        except http.DroppedError as error:
            failures = 0 if part.size >= before + HEADWAY else failures + 1
            if failures >= attempts:
                raise DataError(
                    f"{url}: {error}, {attempts} times in a row; {part.size} bytes are kept in '{part.path}'. "
                    "Run again to go on from there"
                ) from error
            time.sleep(pause * 2 ** max(0, failures - 1))


def _receive(url: str, part: PartialFile, size: int | None, bar: Bar, timeout: float) -> None:
    """Make one attempt; a DroppedError asks for another one."""
    version, start = part.version(url), part.size
    if version is None or (size is not None and start > size):
        part.remove()
        start = 0
    if start and start == size:
        return
    with http.ask(url, start, version, timeout) as answer:
        first, total = http.range_of(answer.headers)
        if answer.status == 416 and total == start:
            return  # the whole file has come, and its length was not known
        if answer.status == 200:
            start, total = 0, http.length_of(answer.headers)
        elif first != start or not start or http.version_of(answer.headers) not in (version, None):
            part.remove()
            raise http.DroppedError("the server sent another range than was asked for")
        if size is not None and total not in (size, None):
            part.remove()
            raise DataError(f"{url}: the server's file has {total} bytes, and {size} are expected: another version")
        if not start:
            part.begin(url, http.version_of(answer.headers))
        _save(url, answer, part, start, total if size is None else size, bar)


def _save(url: str, answer: Any, part: PartialFile, start: int, expected: int | None, bar: Bar) -> None:
    """Append the bytes of an answer to the part, and no more than the file has."""
    folder, limit = part.path.parent, LIMIT if expected is None else expected
    require_space(folder, (expected or 0) - start, part.path.name)
    done = start
    with part.path.open("ab") as file, bar(part.path.stem, expected) as advance:
        advance(done)
        while chunk := http.read(url, answer, CHUNK):
            done += len(chunk)
            if done > limit:
                break
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                if error.errno in FULL:
                    raise DataError(no_room(folder, part.path.name, "more bytes are needed")) from error
                raise
            advance(done)
    if done > limit:
        part.remove()
        raise DataError(f"{url}: the server sends more than the {limit} bytes of the file")
    if done == 0 or (expected is not None and done < expected):
        raise http.DroppedError(f"the connection ended after {done} of {expected or 'some'} bytes")


def _verify_part(url: str, part: PartialFile, size: int | None, checksum: str | None, bar: Bar) -> None:
    try:
        verify(part.path, size, checksum, bar)
    except DataError as error:
        part.remove()
        raise DataError(f"{url}: {error}. What has come is removed; try again later") from error
