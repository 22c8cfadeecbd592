"""Decoding pictures as users have them: upright, 8 bits a channel, RGB; bounded before anything is decoded."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from idd_seg.data.pipeline.decode import ORIENTATION
from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # no format that calls another program
MAX_PIXELS = 2**27  # 134 million, of a picture: 10,000 x 10,000 is read, a decompression bomb is not
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, RuntimeError, OverflowError),
    *(zlib.error, struct.error, Image.DecompressionBombError, MemoryError),
)
STRIP = 512  # rows
Result = TypeVar("Result")


def size_of(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) as they stand in the file's head; nothing is decoded.

    Raises:
        DataError: if the file is missing, empty, no picture, or larger than `max_pixels`.
    """
    return _opened(path, max_pixels, lambda picture: (picture.height, picture.width))


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read a picture as (H, W, 3) uint8 RGB, upright as its EXIF tag says; see `to_rgb`.

    Raises:
        DataError: as `size_of`; also if it is damaged or truncated, or of a kind that has no 8-bit form.
    """
    return _opened(path, max_pixels, lambda picture: to_rgb(picture, str(path)))


def to_rgb(picture: Image.Image, name: str) -> UInt8:
    """Return (H, W, 3) uint8 RGB: transparency is left out, 16 bits keep the upper 8, CMYK and grey are converted.

    Raises:
        DataError: for floating-point pixels, or 32 bits of more than 16.
    """
    # Copies of a large picture are made only where they must be.
    upright = picture if picture.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        wide = np.asarray(upright).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError(f"{name}: a picture of 32 bits with values {wide.min()} to {wide.max()}; 16 bits are read")
        upright = Image.fromarray((wide >> 8).astype(np.uint8))
    if upright.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers; 8 or 16 bits a channel are read")
    return _pixels(upright)


def _pixels(picture: Image.Image) -> UInt8:
    """Return (H, W, 3), converted in strips: Pillow would hold the picture three times over."""
    picture.load()
    found = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, STRIP):
        bottom = min(picture.height, top + STRIP)
        found[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)).convert("RGB"))
    return found


def _opened(path: Path, max_pixels: int, use: Callable[[Image.Image], Result]) -> Result:
    """Open a file, check its size and use it, or raise a DataError that names it."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        with warnings.catch_warnings():
            # Pillow's own bound is lower; the one below is ours.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    raise DataError(
                        f"{path}: {picture.width} x {picture.height} pixels are more than max_pixels={max_pixels}"
                    )
                return use(picture)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a picture") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: no picture; {', '.join(FORMATS)} are read") from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: the picture can't be read, it is damaged or truncated ({_short(error)})") from error


def _short(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
