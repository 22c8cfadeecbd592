"""Decoding photographs and label maps, and saying what is wrong with a file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LABEL_SUFFIX = ".png"
FORMATS = ("PNG", "JPEG")  # no format that calls another program
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # place of the bits a channel
ORIENTATION = 0x0112  # EXIF
MASKS = ("indices", "palette", "rgb")
_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # older versions have only BGR
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


def _decoded(path: Path, decode: Callable[[Image.Image, bytes], UInt8]) -> UInt8:
    """Open a file and decode it completely, or raise a DataError that names it."""
    try:
        data = path.read_bytes()
        if not data:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        if data.startswith(PNG):
            _check_chunks(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return decode(Image.open(io.BytesIO(data), formats=FORMATS), data)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (*_UNREADABLE, Image.DecompressionBombWarning) as error:
        reason = "no PNG or JPEG picture" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path}: the picture can't be read, it is damaged or truncated ({reason})") from error


def _check_chunks(data: bytes) -> None:
    """Compare each part of a PNG with its checksum: decoders fill up in silence what a flipped bit makes unreadable.

    Raises:
        ValueError: for a damaged part, or a file without its end.
    """
    view, start = memoryview(data), len(PNG)
    while start + 12 <= len(data):
        length = int.from_bytes(view[start : start + 4], "big")
        end = start + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("the checksum of a part is wrong")
        if bytes(view[start + 4 : start + 8]) == b"IEND":
            return
        start = end + 4
    raise ValueError("its end is missing")


def read_image(path: Path) -> UInt8:
    """Read a photograph as (H, W, 3) uint8 RGB.

    Raises:
        DataError: if the file is missing, empty, truncated, too large to be a photograph, or no picture.
    """

    def decode(picture: Image.Image, data: bytes) -> UInt8:
        if picture.mode.startswith(("I", "F")):
            raise DataError(f"{path}: the photograph is a '{picture.mode}' picture; 8 bits a channel are expected")
        if picture.getexif().get(ORIENTATION, 1) != 1:
            _tell_turned(path)
        quick = _by_opencv(data) if picture.mode == "RGB" else None
        return np.array(picture.convert("RGB")) if quick is None else quick

    return _decoded(path, decode)


def _tell_turned(path: Path) -> None:
    global _told_turned
    if not _told_turned:
        _told_turned = True
        warnings.warn(
            f"{path}: its EXIF tag says that the picture is to be shown turned. In training pixels are taken as they "
            "are stored, as most data sets' labels are drawn; if yours were drawn upright, turn the files themselves. "
            "This is said once",
            stacklevel=2,
        )


_told_turned = False


def _by_opencv(data: bytes) -> UInt8 | None:
    """Decode a whole file in four fifths of Pillow's time; None leaves it to Pillow to say why not."""
    # What was cut off has no end mark, and some versions of OpenCV would fill it up in silence.
    if b"IEND" not in data[-64:] and b"\xff\xd9" not in data[-64:]:
        return None
    try:
        picture: UInt8 | None = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if picture is None or _RGB != cv2.IMREAD_COLOR:
        return picture
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)  # type: ignore[no-any-return]


def read_label(path: Path, masks: str = "indices") -> UInt8:
    """Read a label map.

    Args:
        masks: `indices`, grey values or the indices of a palette picture; `palette`, the colours of a palette
            picture; `rgb`, the colours of any picture.

    Returns:
        (H, W) uint8 values, or (H, W, 3) uint8 colours.

    Raises:
        DataError: as `read_image`; also for a JPEG, more than 8 bits, or a picture of another kind than `masks` says.
    """

    def decode(picture: Image.Image, data: bytes) -> UInt8:
        mode = picture.mode
        if picture.format == "JPEG":
            raise DataError(f"{path}: a label map stored as JPEG has lost its exact values; store it as PNG")
        if mode.startswith(("I", "F")):
            raise DataError(
                f"{path}: the label map is a 16-bit picture (mode '{mode}'); class ids are expected in 8 bits. "
                "Store it as an 8-bit PNG"
            )
        if masks == "indices":
            return _indices(picture, path, data)
        if masks == "palette" and mode != "P":
            raise DataError(
                f"{path}: the label map is a '{mode}' picture, and data.masks=palette expects a palette; "
                f"use data.masks={'rgb' if mode.startswith('RGB') else 'indices'}"
            )
        if mode not in ("P", "RGB", "RGBA"):
            raise DataError(f"{path}: the label map is a '{mode}' picture, without colours; use data.masks=indices")
        return np.array(picture.convert("RGB"))

    return _decoded(path, decode)


def _indices(picture: Image.Image, path: Path, data: bytes) -> UInt8:
    if picture.mode == "1":
        return np.asarray(picture.convert("L")) // 255
    if picture.mode in ("RGB", "RGBA"):
        raise DataError(
            f"{path}: the label map is a colour picture ('{picture.mode}'), and class ids are expected in 8 bits, grey "
            "or palette. If its colours stand for classes, use data=folder data.masks=rgb with a class list"
        )
    if picture.mode not in ("L", "P"):
        raise DataError(
            f"{path}: the label map is a '{picture.mode}' picture; class ids are expected in 8 bits, grey or palette"
        )
    values = np.asarray(picture)
    depth = data[PNG_DEPTH]
    # Pillow spreads grey values of 2 and 4 bits over 0 to 255.
    return values // (255 // (2**depth - 1)) if picture.mode == "L" and depth < 8 else values
