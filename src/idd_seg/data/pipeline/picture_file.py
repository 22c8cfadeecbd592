"""Opening a picture's file: its size, what is wrong with it, and nothing that it holds."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

from idd_seg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
LABEL_SUFFIX = ".png"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # no format that calls another program
MAX_PIXELS = 2**27  # 134 million, of a picture: 10,000 x 10,000 is read, a decompression bomb is not
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
PNG_DEPTH = 24  # place of the bits a channel
BITS = 0x0102  # a tag of TIFF
WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
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
                refuse_large(str(path), picture.height, picture.width, max_pixels)
                return use(picture, data)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, not a picture") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: {_stranger(data or head_of(path))}") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: the picture is too large, max_pixels={max_pixels} are the most that are read ({short(error)})"
        ) from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: the picture can't be read, it is damaged or truncated ({short(error)})") from error


def refuse_large(name: str, height: int, width: int, max_pixels: int) -> None:
    """Raise a DataError that names a picture of more than `max_pixels`."""
    if width * height > max_pixels:
        raise DataError(
            f"{name}: {width} x {height} pixels are more than max_pixels={max_pixels}, the most that are read; make "
            "it smaller, or cut it up"
        )


def head_of(path: Path) -> bytes:
    """Return the beginning of a file; nothing of one that can't be opened."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _stranger(content: bytes) -> str:
    head = content[:64]
    kind = next((words for begin, words in STRANGERS if head.startswith(begin)), None)
    if kind is None and head.startswith(TIFF):
        kind = (
            "a TIFF of other channels or bits than a photograph has, or a damaged one; data.channels=N and "
            "data.bits=8|16 read such pictures"
        )
    if kind is None and head[4:8] == b"ftyp":
        kind = "a HEIC or AVIF picture, or a video; store it as JPEG or PNG"
    if kind is None and head.lstrip()[:1] in (b"<", b"{"):
        kind = "a text, such as a web page"
    return f"no picture; {', '.join(FORMATS)} are read, and this is {kind or 'something else, or its head is damaged'}"


def short(error: Any) -> str:
    """Return the first line of an error, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def chunks(data: bytes) -> set[bytes]:
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


def bits_of(picture: Image.Image, data: bytes) -> int:
    """Return the bits of a channel, as they are in the file; Pillow says nothing of 16 bits in colour."""
    if picture.format == "PNG" and data:
        return data[PNG_DEPTH]
    if picture.format == "TIFF":
        bits: tuple[int, ...] = picture.tag_v2.get(BITS, (1,))  # type: ignore[attr-defined]
        return max(bits)
    return 16 if picture.mode.startswith("I") else 8


def tell_transparent(picture: Image.Image, name: str) -> None:
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
