"""Decoding photographs, for every command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from idd_seg.data.pipeline.exact import exact_size, read_exact
from idd_seg.data.pipeline.orientation import BACK, ORIENTATION, tell_turned, turn_of
from idd_seg.data.pipeline.picture_file import (
    MAX_PIXELS,
    TIFF,
    bits_of,
    head_of,
    opened,
    tell_once,
    tell_transparent,
)
from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Raster, UInt8
from idd_seg.errors import DataError

STRIP = 512  # rows
SAMPLES = 0x0115  # a tag of TIFF
DARK = 16  # of 16 bits, the upper 8 of a picture whose values stay below 4096
_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # older versions have only BGR


def size_of(path: Path, max_pixels: int = MAX_PIXELS, pixels: Pixels = RGB) -> tuple[int, int]:
    """Return (height, width) as they stand in the file's head; nothing is decoded.

    Raises:
        DataError: if the file is missing, empty, no picture, or larger than `max_pixels`; where the data are no
            photographs, also if it is of another kind than `pixels`.
    """
    if not pixels.photograph:
        return exact_size(path, pixels, max_pixels)
    return opened(path, max_pixels, lambda picture, _: (picture.height, picture.width), whole=False)


def read_image(path: Path, max_pixels: int = MAX_PIXELS, *, upright: bool = False, pixels: Pixels = RGB) -> Raster:
    """Read a photograph as (H, W, 3) uint8 RGB, see `to_rgb`; or a picture of other channels or bits, see `read_exact`.

    Args:
        upright: turn it as its EXIF tag says; else pixels stay as they are stored, as labels are drawn.
        pixels: what the data's pictures hold.

    Raises:
        DataError: as `size_of`; also if it is damaged or truncated, or of a kind that has no 8-bit form.
    """
    if not pixels.photograph:
        return read_exact(path, pixels, max_pixels, upright=upright)
    return _read_photograph(path, max_pixels, None, upright=upright)


def decode_image(content: bytes, name: str, *, upright: bool = False, pixels: Pixels = RGB) -> Raster:
    """Read a picture from the content of its file; otherwise as `read_image`."""
    if not pixels.photograph:
        return read_exact(Path(name), pixels, MAX_PIXELS, content, upright=upright)
    return _read_photograph(Path(name), MAX_PIXELS, content, upright=upright)


def _read_photograph(path: Path, max_pixels: int, content: bytes | None, *, upright: bool) -> UInt8:
    def decode(picture: Image.Image, data: bytes) -> UInt8:
        turned = turn_of(picture, data) != 1
        if turned and not upright:
            tell_turned(str(path))
        quick = _by_opencv(data) if _is_common(picture, data) and not (turned and upright) else None
        return to_rgb(picture, str(path), upright=turned and upright, data=data) if quick is None else quick

    return opened(path, max_pixels, decode, content=content)


def stored_by(path: Path, upright: UInt8) -> UInt8:
    """Turn a map (H, W) of a picture that is shown upright back to the pixels as the file stores them."""

    if head_of(path)[:4] in TIFF:
        return upright  # its own tag turns it everywhere

    def turned_back(picture: Image.Image, _: bytes) -> UInt8:
        method = BACK.get(int(picture.getexif().get(ORIENTATION, 1)))
        return upright if method is None else np.asarray(Image.fromarray(upright).transpose(method))

    return opened(path, MAX_PIXELS, turned_back, whole=False)


def _is_common(picture: Image.Image, data: bytes) -> bool:
    """Tell whether a file is RGB of 8 bits, PNG or JPEG, without anything else that had to be looked at."""
    if picture.mode != "RGB" or picture.format not in ("PNG", "JPEG"):
        return False
    return picture.format == "JPEG" or (bits_of(picture, data) == 8 and "transparency" not in picture.info)


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


def to_rgb(picture: Image.Image, name: str, *, upright: bool = True, data: bytes = b"") -> UInt8:
    """Return (H, W, 3) uint8 RGB: 16 bits keep the upper 8, CMYK and grey are converted.

    Of transparent pixels the colours that lie behind are taken, and a warning says so once.

    Args:
        data: the file's content, for messages.

    Raises:
        DataError: for floating-point pixels, 32 bits of more than 16, or channels that are no colours.
    """
    deep = bits_of(picture, data) > 8
    if getattr(picture, "n_frames", 1) > 1:
        tell_once("pages", f"{name}: the file holds several pictures, and only the first is read")
    if picture.format == "TIFF":
        _require_colours(picture, name)
    if upright and picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    tell_transparent(picture, name)
    if picture.mode.startswith("I"):
        wide = np.asarray(picture).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError(f"{name}: a picture of 32 bits with values {wide.min()} to {wide.max()}; 16 bits are read")
        deep, picture = True, Image.fromarray((wide >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise DataError(f"{name}: its pixels are floating-point numbers; 8 or 16 bits a channel are read")
    found = _pixels(picture, name)
    if deep and found.max(initial=0) < DARK:
        tell_once(
            "dark",
            f"{name}: of its 16 bits the upper 8 are read, and its values are all below {256 * DARK}: the picture is "
            "almost black. Spread the values over 0 to 65535, or store them in 8 bits",
        )
    return found


def _require_colours(picture: Image.Image, name: str) -> None:
    channels = picture.tag_v2.get(SAMPLES, 1)  # type: ignore[attr-defined]
    if channels > len(picture.getbands()) or picture.mode.startswith("RGBX"):
        raise DataError(
            f"{name}: the picture has {channels} channels, and red, green, blue (and a mask of transparency) are read; "
            f"store three of them, or set data.channels={channels} to read all"
        )


def _pixels(picture: Image.Image, name: str) -> UInt8:
    """Return (H, W, 3), converted in strips: Pillow would hold the picture three times over."""
    picture.load()
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert(picture.mode.upper())
    found = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, STRIP):
        bottom = min(picture.height, top + STRIP)
        part = picture.crop((0, top, picture.width, bottom))
        try:
            found[top:bottom] = np.asarray(part.convert("RGB"))
        except ValueError as error:
            raise DataError(
                f"{name}: its pixels are '{picture.mode}', which can't be made RGB; store the picture as RGB"
            ) from error
    return found
