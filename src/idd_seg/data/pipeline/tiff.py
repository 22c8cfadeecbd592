"""TIFF of any number of channels, read as they are stored.

Pillow has no pictures of 16 bits in several channels. OpenCV drops channels that are stored as planes, multiplies 8-bit
RGBA by its fourth channel, and reads four at most. The package `tifffile` reads all of these as they were written.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from idd_seg.data.pipeline.orientation import ORIENTATION, turned
from idd_seg.data.pipeline.picture_file import short, tell_once
from idd_seg.data.pipeline.pixels import MOST_CHANNELS, Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import ConfigError, DataError, UserError

READABLE = {0: "grey whose zero is white", 3: "a palette", 5: "CMYK", 8: "CIELAB"}  # TIFF's photometric interpretation
YCBCR, JPEG = 6, 7  # which tifffile turns into RGB
GREY, RGB = 1, 2
SEPARATE = 2  # channels as planes of their own
ASIDE = 0b101  # of a page's kind: an overview or a mask of another page
LOOKED_AT = 4 * MOST_CHANNELS  # pages
PACKAGE = "pip install 'idd-seg[tiff]'"


@contextmanager
def opened_tiff(name: str, path: Path, content: bytes | None) -> Iterator[Any]:
    """Open a TIFF, and raise what is wrong with it as a DataError that names it.

    Raises:
        ConfigError: if the package is missing.
    """
    try:
        from tifffile import TiffFile
    except ImportError as error:
        raise ConfigError(f"{name}: TIFF of such channels and bits needs the package tifffile; {PACKAGE}") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of a file is said by its exceptions
    try:
        with TiffFile(path if content is None else io.BytesIO(content)) as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # a damaged file leads to any of them
        if "imagecodecs" in str(error):
            raise ConfigError(f"{name}: its compression needs the package imagecodecs; {PACKAGE}") from error
        raise DataError(f"{name}: the picture can't be read, it is damaged or truncated ({short(error)})") from error


class Planes:
    """The picture of an open TIFF: a page of N channels, or N pages of one channel each.

    Args:
        name: of the file, for messages.
        wanted: by whose channels pages are taken together.

    Attributes:
        pixels: what it holds; (height, width) in `size`, as it is to be shown.

    Raises:
        DataError: for pixels of another kind than unsigned whole numbers of 8 or 16 bits.
    """

    def __init__(self, file: Any, name: str, wanted: Pixels) -> None:
        pages = [page for page in itertools.islice(file.pages, LOOKED_AT) if not _number(page.subfiletype) & ASIDE]
        if not pages:
            raise DataError(f"{name}: the file holds no picture")
        self.file, self.name, self.pages = file, name, pages[:1]
        first = self.pages[0]
        if len(pages) > 1:
            alike = all(_layout(page) == _layout(first) for page in pages)
            if alike and len(pages) == wanted.channels and first.samplesperpixel == 1:
                self.pages = pages
            else:
                tell_once("pages", f"{name}: the file holds several pictures, and only the first is read")
        self.pixels = Pixels(len(self.pages) * first.samplesperpixel, self._bits(first))
        self.tag = int(first.tags[ORIENTATION].value) if ORIENTATION in first.tags else 1
        height, width = int(first.imagelength), int(first.imagewidth)
        self.size = (width, height) if self.tag >= 5 else (height, width)

    def _bits(self, page: Any) -> int:
        kind, compression = int(page.photometric), int(page.compression)
        if kind not in (GREY, RGB) and (kind, compression) != (YCBCR, JPEG):
            raise DataError(
                f"{self.name}: its pixels are {READABLE.get(kind, f'of TIFF kind {kind}')}, and channels are read as "
                "they are stored; store them as plain numbers (photometric: black is zero)"
            )
        if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16) or page.imagedepth != 1:
            number = page.dtype if page.dtype is not None else "no numbers"
            raise DataError(
                f"{self.name}: its channels are {number} of {page.bitspersample} bits; unsigned whole numbers of 8 or "
                "16 bits are read"
            )
        return int(page.bitspersample)

    def read(self, most: int) -> Raster:
        """Return (H, W, C), turned as its tag says.

        Args:
            most: pixels that a tile may have.
        """
        planes = [self._plane(page, most) for page in self.pages]
        whole = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return np.ascontiguousarray(turned(whole, self.tag), self.pixels.dtype)

    def _plane(self, page: Any, most: int) -> Raster:
        end = max((start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        if end > self.file.filehandle.size:
            raise DataError(f"{self.name}: the picture can't be read, it is truncated")
        if page.is_tiled and page.tilewidth * page.tilelength > most:
            raise DataError(f"{self.name}: its tiles are {page.tilewidth} x {page.tilelength} pixels, more than {most}")
        found = page.asarray(maxworkers=1)
        if page.samplesperpixel == 1:
            return found.reshape(page.imagelength, page.imagewidth, 1)  # type: ignore[no-any-return]
        if int(page.planarconfig) == SEPARATE:
            found = np.moveaxis(found, 0, -1)
        if found.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
            raise DataError(f"{self.name}: the picture can't be read, its head is damaged")
        return found  # type: ignore[no-any-return]


def _layout(page: Any) -> tuple[Any, ...]:
    return page.imagelength, page.imagewidth, page.samplesperpixel, page.bitspersample, page.dtype, page.photometric


def _number(value: Any) -> int:
    return 0 if value is None else int(value)
