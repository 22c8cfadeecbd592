"""Decoded pictures in memory-mapped files: decoded once, read by all workers and processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np

from idd_seg.data.pipeline.source import Around, Item, Raster, Source, UInt8
from idd_seg.errors import DataError

MAGIC = b"idd-seg decoded3"
# Magic, digest of the item's key; height, width, channels and bytes a channel of the photograph; height, width and
# channels of the label (0: none).
FIELDS = struct.Struct("<16s16sIIIIIII")
CHECKSUM = struct.Struct("<I")  # of the fields and the pixels
START = FIELDS.size + CHECKSUM.size
DRAFTS = "drafts"
OLD = 3600.0  # seconds after which nobody writes at a draft any more
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class CachedSource(Around):
    """A source whose items are kept decoded, a file each, and are memory-mapped from then on.

    A file is written in a folder of drafts, flushed and renamed: a half one is never taken for a whole one. What
    processes that were killed left there is removed by a later run.
    Several processes may write the same item; the last one wins, with the same content. An item whose file on disk has
    changed is decoded anew. The checksum is verified when a process reads a file for the first time. Where
    nothing can be written (a full disk), a warning is given once and items are decoded as without a cache.

    Args:
        folder: made if it is missing.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        super().__init__(source)
        self.folder = folder
        self.verified: set[Path] = set()
        self.writable = True
        _remove_old(folder / DRAFTS)

    def path(self, index: int) -> Path:
        """Return where the item is or will be kept."""
        name = self._digest(index).hex()
        return self.folder / name[:2] / name

    def _digest(self, index: int) -> bytes:
        return hashlib.blake2b(self.source.key(index).encode("utf-8", "surrogateescape"), digest_size=16).digest()

    def __getitem__(self, index: int) -> Item:
        path = self.path(index)
        kept = self._read(path)
        if kept is not None:
            return Item(*kept, self.name(index))
        item = self.source[index]
        if self.writable:
            self._write(path, item)
        return item

    def warn_if_small(self) -> None:
        """Say beforehand that there is no room for all items, as far as the first one tells."""
        first = self.path(0)
        if not len(self.source) or first.is_file():
            return
        try:
            item = self.source[0]
        except DataError:
            return  # whoever reads it will say so
        needed = (item.image.nbytes + (0 if item.label is None else item.label.nbytes)) * len(self.source)
        place = next(folder for folder in [self.folder, *self.folder.parents] if folder.is_dir())
        free = shutil.disk_usage(place).free
        if free < needed:
            warnings.warn(
                f"data.cache: '{self.folder}' has {free / 1e9:.1f} GB free, and {len(self.source)} decoded pictures "
                f"take about {needed / 1e9:.1f} GB; what does not fit is decoded again and again",
                stacklevel=2,
            )

    def _read(self, path: Path) -> tuple[Raster, UInt8 | None] | None:
        try:
            pixels = np.asarray(np.memmap(path, np.uint8, "r"))
        except (OSError, ValueError):  # none, or an empty one
            return None
        if len(pixels) < START:
            return None
        fields = pixels[: FIELDS.size].tobytes()
        magic, digest, height, width, depth, bytes_each, rows, columns, channels = FIELDS.unpack(fields)
        split = START + height * width * depth * bytes_each
        if (
            magic != MAGIC
            or digest.hex() != path.name
            or bytes_each not in (1, 2)
            or len(pixels) != split + rows * columns * channels
        ):
            return None
        if path not in self.verified:
            (checksum,) = CHECKSUM.unpack(pixels[FIELDS.size : START].tobytes())
            if zlib.crc32(pixels[START:].data, zlib.crc32(fields)) != checksum:
                return None
            self.verified.add(path)
        image: Raster = pixels[START:split].view(np.uint8 if bytes_each == 1 else np.uint16)
        image = image.reshape(height, width, depth)
        if not channels:
            return image, None
        shape = (rows, columns) if channels == 1 else (rows, columns, channels)
        return image, pixels[split:].reshape(shape)

    def _write(self, path: Path, item: Item) -> None:
        image, label = np.ascontiguousarray(item.image), item.label
        body = [image.data]
        rows, columns, channels = (0, 0, 0) if label is None else (*label.shape, 1)[:3]
        if label is not None:
            body.append(np.ascontiguousarray(label).data)
        fields = FIELDS.pack(MAGIC, bytes.fromhex(path.name), *image.shape, image.itemsize, rows, columns, channels)
        checksum = zlib.crc32(fields)
        for part in body:
            checksum = zlib.crc32(part, checksum)
        beside = self.folder / DRAFTS / f"{path.name}.{os.getpid()}"
        try:
            beside.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.writelines([fields, CHECKSUM.pack(checksum), *body])
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            self.writable = False
            reason = "is full" if error.errno in FULL[:2] else f"can't be written ({error.strerror})"
            warnings.warn(
                f"data.cache: '{self.folder}' {reason}; the run goes on, and decodes what is not cached yet again "
                "and again. Make room, or use another data.cache_dir",
                stacklevel=2,
            )


def _remove_old(drafts: Path) -> None:
    """Remove the drafts of processes that were killed; a clock that was set back leaves them there a while longer."""
    with contextlib.suppress(OSError):
        for draft in list(drafts.iterdir()):
            with contextlib.suppress(OSError):
                if time.time() - draft.stat().st_mtime > OLD:
                    draft.unlink()
