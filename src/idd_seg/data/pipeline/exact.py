"""Pictures of any channels and bits, read exactly: no conversion of colours, depth or transparency."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idd_seg.data.pipeline.orientation import tell_turned, turn_of, turned
from idd_seg.data.pipeline.picture_file import MAX_PIXELS, PNG_DEPTH, TIFF, bits_of, head_of, opened, refuse_large
from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.data.pipeline.tiff import Planes, opened_tiff
from idd_seg.errors import DataError

MAX_BYTES = 2**31  # of a decoded picture
MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the kind of colour in a PNG's head


def exact_size(path: Path, pixels: Pixels, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) as they stand in the file's head, and refuse pictures of another kind.

    Raises:
        DataError: as `read_exact`; nothing is decoded.
    """
    if head_of(path)[:4] in TIFF:
        with opened_tiff(str(path), path, None) as file:
            return _checked(Planes(file, str(path), pixels), pixels, max_pixels).size
    head = head_of(path)

    def size(picture: Image.Image, _: bytes) -> tuple[int, int]:
        _require(_kind(picture, head, str(path)), pixels, str(path))
        _bound(picture.height, picture.width, pixels, str(path), max_pixels)
        return picture.height, picture.width

    return opened(path, max_pixels, size, whole=False)


def read_exact(
    path: Path, pixels: Pixels, max_pixels: int = MAX_PIXELS, content: bytes | None = None, *, upright: bool = False
) -> Raster:
    """Read a picture as (H, W, C) uint8 or uint16, its channels in the order of the file.

    Args:
        content: of the file, where it is known; else it is read.
        upright: turn it as its EXIF tag says; else pixels stay as they are stored. The tag of a TIFF always turns it.

    Raises:
        DataError: if the file is missing, damaged, no picture, too large, or of other channels or bits than `pixels`.
        ConfigError: for a TIFF without the package that reads it.
    """
    name = str(path)
    if (head_of(path) if content is None else content)[:4] in TIFF:
        with opened_tiff(name, path, content) as file:
            return _checked(Planes(file, name, pixels), pixels, max_pixels).read(max_pixels)

    def decode(picture: Image.Image, data: bytes) -> Raster:
        _require(_kind(picture, data, name), pixels, name)
        _bound(picture.height, picture.width, pixels, name, max_pixels)
        tag = turn_of(picture, data)
        found = _sixteen_bits(data) if pixels.bits == 16 else np.asarray(picture)
        found = found.reshape(*found.shape[:2], -1)
        if not pixels.fits(found):
            raise ValueError(f"its pixels are {found.shape[2]} channels of {found.dtype}")
        if tag != 1 and not upright:
            tell_turned(name)
        return np.ascontiguousarray(turned(found, tag if upright else 1))

    return opened(path, max_pixels, decode, content=content)


def _checked(planes: Planes, pixels: Pixels, max_pixels: int) -> Planes:
    _require(planes.pixels, pixels, planes.name)
    _bound(*planes.size, pixels, planes.name, max_pixels)
    return planes


def _kind(picture: Image.Image, head: bytes, name: str) -> Pixels:
    """Return what a PNG, JPEG, WebP or BMP holds."""
    channels = PNG_CHANNELS.get(head[PNG_DEPTH + 1]) if picture.format == "PNG" else MODES.get(picture.mode)
    bits = bits_of(picture, head)  # of a PNG, as its head says
    if channels is None or bits not in (8, 16) or (channels == 2 and bits == 16):
        raise DataError(
            f"{name}: its pixels are '{picture.mode}' of {bits} bits, and channels of 8 or 16 bits are read as they "
            "are stored; store it as a TIFF of plain channels"
        )
    return Pixels(channels, bits)


def _require(found: Pixels, wanted: Pixels, name: str) -> None:
    if found != wanted:
        raise DataError(
            f"{name}: the picture has {found}, and {wanted} are expected; store it so, or say "
            f"data.channels={found.channels} data.bits={found.bits} of all pictures"
        )


def _bound(height: int, width: int, pixels: Pixels, name: str, max_pixels: int) -> None:
    refuse_large(name, height, width, max_pixels)
    if height * width * pixels.bytes > MAX_BYTES:
        raise DataError(
            f"{name}: {width} x {height} pixels of {pixels} take {height * width * pixels.bytes / 1e9:.1f} GB; at most "
            f"{MAX_BYTES / 1e9:.1f} GB are read: make it smaller, or cut it up"
        )


def _sixteen_bits(data: bytes) -> Raster:
    """Decode a PNG of 16 bits, whose checksums have been compared."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ValueError("OpenCV can't decode it")
    if found.ndim == 3 and found.shape[2] in (3, 4):
        found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB if found.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return np.asarray(found, np.uint16) if found.dtype == np.uint16 else np.asarray(found)
