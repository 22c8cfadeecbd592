"""Decoding photographs and label maps, for every command, and saying what is wrong with a file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIX = ".png"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # no format that calls another program
EXACT = ("PNG", "BMP", "TIFF")  # formats that keep the values of a label map
MAX_PIXELS = 2**27  # 134 million, of a picture: 10,000 x 10,000 is read, a decompression bomb is not
STRIP = 512  # rows
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # place of the bits a channel
ORIENTATION = 0x0112  # EXIF
# What undoes the turn of each value of the tag.
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
BITS, SAMPLES, COMPRESSION = 0x0102, 0x0115, 0x0103  # TIFF
DARK = 16  # of 16 bits, the upper 8 of a picture whose values stay below 4096
WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
# What of a PNG may hold its orientation; Pillow decodes the picture to look for it.
WITH_EXIF = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
MASKS = ("indices", "palette", "rgb")
_RGB = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # older versions have only BGR
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, RuntimeError, OverflowError),
    *(zlib.error, struct.error, MemoryError),
)
# Beginnings of what is often found in the place of a picture.
STRANGERS = (
    (b"\x00\x05\x16\x07", "a file of macOS that goes with a picture; remove it"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself by 'git lfs pull'"),
    (b"GIF8", "a GIF; store it as PNG"),
)
Result = TypeVar("Result")
_told: set[str] = set()


def tell_once(what: str, text: str) -> None:
    """Warn of something once in this process, by the first file that has it."""
    if what not in _told:
        _told.add(what)
        warnings.warn(f"{text}. This is said once", stacklevel=3)


def opened(
    path: Path,
    max_pixels: int,
    use: Callable[[Image.Image, bytes], Result],
    *,
    whole: bool = True,
    content: bytes | None = None,
) -> Result:
    """Open a picture, check its size and use it, or raise a DataError that names it.

    Args:
        content: of the file, where it is known; else it is read.
        whole: read the file at once, and compare the parts of a PNG with their checksums.
        use: is given the picture, not decoded yet, and the file's content where it was read.
    """
    data = content or b""
    try:
        if (path.stat().st_size if content is None else len(content)) == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        if whole:
            data = path.read_bytes() if content is None else content
            if data.startswith(PNG):
                _check_chunks(data)
        with warnings.catch_warnings():
            # Pillow's own bound is another one.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data) if whole else path, formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    raise DataError(
                        f"{path}: {picture.width} x {picture.height} pixels are more than max_pixels={max_pixels}, "
                        "the most that are read; make it smaller, or cut it up"
                    )
                return use(picture, data)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a picture") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: {_stranger(data or _head(path))}") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: the picture is too large, max_pixels={max_pixels} are the most that are read ({_short(error)})"
        ) from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: the picture can't be read, it is damaged or truncated ({_short(error)})") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _stranger(content: bytes) -> str:
    head = content[:64]
    kind = next((words for begin, words in STRANGERS if head.startswith(begin)), None)
    if kind is None and head[4:8] == b"ftyp":
        kind = "a HEIC or AVIF picture, or a video; store it as JPEG or PNG"
    if kind is None and head.lstrip()[:1] in (b"<", b"{"):
        kind = "a text, such as a web page"
    return f"no picture; {', '.join(FORMATS)} are read, and this is {kind or 'something else, or its head is damaged'}"


def _short(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _chunks(data: bytes) -> set[bytes]:
    """Return the kinds of the parts of a PNG whose lengths are right."""
    kinds, start = set(), len(PNG)
    while start + 12 <= len(data):
        kinds.add(data[start + 4 : start + 8])
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return kinds


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


def size_of(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (height, width) as they stand in the file's head; nothing is decoded.

    Raises:
        DataError: if the file is missing, empty, no picture, or larger than `max_pixels`.
    """
    return opened(path, max_pixels, lambda picture, _: (picture.height, picture.width), whole=False)


def read_image(path: Path, max_pixels: int = MAX_PIXELS, *, upright: bool = False) -> UInt8:
    """Read a photograph as (H, W, 3) uint8 RGB; see `to_rgb`.

    Args:
        upright: turn it as its EXIF tag says; else pixels stay as they are stored, as labels are drawn.

    Raises:
        DataError: as `size_of`; also if it is damaged or truncated, or of a kind that has no 8-bit form.
    """

    return _read_image(path, max_pixels, None, upright=upright)


def decode_image(content: bytes, name: str, *, upright: bool = False) -> UInt8:
    """Read a photograph from the content of its file; otherwise as `read_image`."""
    return _read_image(Path(name), MAX_PIXELS, content, upright=upright)


def _read_image(path: Path, max_pixels: int, content: bytes | None, *, upright: bool) -> UInt8:
    def decode(picture: Image.Image, data: bytes) -> UInt8:
        turned = _turned(picture, data)
        if turned and not upright:
            tell_once(
                "turned",
                f"{path}: its EXIF tag says that the picture is to be shown turned. In training pixels are taken as "
                "they are stored, as most data sets' labels are drawn; if yours were drawn upright, turn the files "
                "themselves",
            )
        quick = _by_opencv(data) if _is_common(picture, data) and not (turned and upright) else None
        return to_rgb(picture, str(path), upright=turned and upright, data=data) if quick is None else quick

    return opened(path, max_pixels, decode, content=content)


def _turned(picture: Image.Image, data: bytes) -> bool:
    """Tell whether a picture's EXIF tag turns it. Pillow turns TIFF by itself."""
    if picture.format == "TIFF" or (picture.format == "PNG" and data and not _chunks(data) & WITH_EXIF):
        return False
    return bool(picture.getexif().get(ORIENTATION, 1) != 1)


def stored_by(path: Path, upright: UInt8) -> UInt8:
    """Turn a map (H, W) of a picture that is shown upright back to the pixels as the file stores them."""

    def turned_back(picture: Image.Image, _: bytes) -> UInt8:
        tag = 1 if picture.format == "TIFF" else picture.getexif().get(ORIENTATION, 1)
        method = BACK.get(int(tag))
        return upright if method is None else np.asarray(Image.fromarray(upright).transpose(method))

    return opened(path, MAX_PIXELS, turned_back, whole=False)


def _is_common(picture: Image.Image, data: bytes) -> bool:
    """Tell whether a file is RGB of 8 bits, PNG or JPEG, without anything else that had to be looked at."""
    if picture.mode != "RGB" or picture.format not in ("PNG", "JPEG"):
        return False
    return picture.format == "JPEG" or (_bits(picture, data) == 8 and "transparency" not in picture.info)


def _bits(picture: Image.Image, data: bytes) -> int:
    """Return the bits of a channel, as they are in the file; Pillow says nothing of 16 bits in colour."""
    if picture.format == "PNG" and data:
        return data[PNG_DEPTH]
    if picture.format == "TIFF":
        bits: tuple[int, ...] = picture.tag_v2.get(BITS, (1,))  # type: ignore[attr-defined]
        return max(bits)
    return 16 if picture.mode.startswith("I") else 8


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
    deep = _bits(picture, data) > 8
    if getattr(picture, "n_frames", 1) > 1:
        tell_once("pages", f"{name}: the file holds several pictures, and only the first is read")
    if picture.format == "TIFF":
        _require_colours(picture, name)
    if upright and picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    _tell_transparent(picture, name)
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
            "store three of them"
        )


def _tell_transparent(picture: Image.Image, name: str) -> None:
    """Warn of pixels that are not opaque."""
    if picture.mode in WITH_ALPHA:
        clear = picture.getchannel(len(picture.getbands()) - 1).getextrema()[0] < 255  # type: ignore[operator]
    elif "transparency" in picture.info:
        clear = picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]
    else:
        return
    if clear:
        tell_once(
            "transparent",
            f"{name}: some of its pixels are transparent; the colours that are stored behind them are taken. If "
            "something else should be seen there, store the picture without transparency",
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


def read_label(path: Path, masks: str = "indices") -> UInt8:
    """Read a label map.

    Args:
        masks: `indices`, grey values or the indices of a palette picture; `palette`, the colours of a palette
            picture; `rgb`, the colours of any picture.

    Returns:
        (H, W) uint8 values, or (H, W, 3) uint8 colours.

    Raises:
        DataError: as `read_image`; also for a format that loses values (JPEG, WebP), more than 8 bits, or a picture of
            another kind than `masks` says.
    """

    def decode(picture: Image.Image, data: bytes) -> UInt8:
        mode, kind = picture.mode, picture.format
        if kind not in EXACT or (kind == "TIFF" and str(picture.info.get("compression")).endswith("jpeg")):
            name = "WebP" if kind == "WEBP" else "JPEG"
            raise DataError(f"{path}: a label map stored as {name} has lost its exact values; store it as PNG")
        if mode.startswith(("I", "F")) or _bits(picture, data) > 8:
            raise DataError(
                f"{path}: the label map is a 16-bit picture or a deeper one (mode '{mode}'); class ids are expected in "
                "8 bits, and colours in 8 bits a channel. Store it as an 8-bit PNG"
            )
        if getattr(picture, "n_frames", 1) > 1:
            raise DataError(f"{path}: the file holds several pictures; a label map is one. Store it as PNG")
        if masks == "indices":
            return _indices(picture, path, data)
        if masks == "palette" and mode != "P":
            raise DataError(
                f"{path}: the label map is a '{mode}' picture, and data.masks=palette expects a palette; "
                f"use data.masks={'rgb' if mode.startswith('RGB') else 'indices'}"
            )
        if mode not in ("P", "RGB", "RGBA"):
            raise DataError(f"{path}: the label map is a '{mode}' picture, without colours; use data.masks=indices")
        if mode != "P":
            _tell_transparent(picture, str(path))
        return np.array(picture.convert("RGB"))

    return opened(path, MAX_PIXELS, decode)


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
    depth = _bits(picture, data)
    # Pillow spreads grey values of 2 and 4 bits over 0 to 255.
    return values // (255 // (2**depth - 1)) if picture.mode == "L" and depth < 8 else values
