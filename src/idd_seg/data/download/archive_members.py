"""The files of zip, tar and tgz archives, one after the other; what is broken or no plain file is refused."""

from __future__ import annotations

import contextlib
import functools
import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from idd_seg.data.download.transfer import CHUNK
from idd_seg.errors import DataError

try:
    import lzma

    _LZMA: tuple[type[Exception], ...] = (lzma.LZMAError,)
except ImportError:  # a Python that was built without it, which can't unpack such files either
    _LZMA = ()

HEADER = 16 << 20  # bytes of one header of a tar archive
_DAMAGED: tuple[type[Exception], ...] = (
    *_LZMA,
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
)


class Entry(NamedTuple):
    """A file of an archive.

    Attributes:
        name: as it stands in the archive.
        size: bytes, unpacked.
        position: bytes of the archive that are read when this file is.
        open: returns its content.
    """

    name: str
    size: int
    position: int
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def damage_named(archive: Path) -> Iterator[None]:
    """Turn what a broken archive raises into a DataError that names it."""
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{archive}: the archive is damaged ({error}); remove it, and get it again") from error


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[tuple[Iterator[Entry], int]]:
    """Open an archive, whose kind its content tells; yield its files, and the bytes that they need at least.

    Raises:
        DataError: while the files are read too: for a file that is no archive, a link, a device, an encrypted file.
    """
    with archive.open("rb") as raw, contextlib.ExitStack() as stack:
        start = raw.read(512)
        raw.seek(0)
        if start.startswith(b"PK"):
            with damage_named(archive):
                packed = stack.enter_context(zipfile.ZipFile(raw))
            yield _zip_entries(packed, archive), sum(info.file_size for info in packed.infolist())
        elif start.startswith(b"\x1f\x8b"):
            plain = stack.enter_context(gzip.GzipFile(fileobj=raw))
            yield _tar_entries(plain, raw, archive), archive.stat().st_size
        elif start[257:262] == b"ustar" or tarfile.is_tarfile(archive):
            yield _tar_entries(raw, raw, archive), archive.stat().st_size
        else:
            page = start.lstrip().lower().startswith((b"<!doctype", b"<html"))
            what = "a web page, as a login or an error is shown" if page else "neither zip, tar nor tgz"
            raise DataError(f"{archive}: the file is {what}; remove it, and get the archive again")


def _zip_entries(packed: zipfile.ZipFile, archive: Path) -> Iterator[Entry]:
    position = 0
    for info in packed.infolist():
        position += info.compress_size
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise DataError(f"{archive}: '{info.filename}' is a link or device; the archive is refused")
        if info.flag_bits & 1:
            raise DataError(f"{archive}: '{info.filename}' is encrypted; unpack the archive yourself")
        yield Entry(info.filename, info.file_size, position, functools.partial(packed.open, info))


class _Guarded:
    """A stream of a tar archive that refuses to read a huge header into memory."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data: bytes = self.stream.read(size)
        return data


def _content(packed: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = packed.extractfile(info)
    if content is None:
        raise tarfile.ReadError(f"'{info.name}' is no file")
    return content


def _tar_entries(plain: Any, raw: IO[bytes], archive: Path) -> Iterator[Entry]:
    with tarfile.open(fileobj=_Guarded(plain), mode="r:") as packed:  # type: ignore[call-overload]
        while info := packed.next():
            packed.members.clear()  # or a million of them stay in memory
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise DataError(f"{archive}: '{info.name}' is a link or device; the archive is refused")
            yield Entry(info.name, info.size, raw.tell(), functools.partial(_content, packed, info))
        # Garbage in the place of a header ends the archive without an error.
        plain.seek(packed.offset)
        if plain.read(512).strip(b"\0"):
            raise tarfile.ReadError("a header is broken")
        while plain.read(CHUNK):  # to the end, where gzip compares its checksum
            pass
