"""How a picture's tag turns it, and back."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.data.pipeline.picture_file import chunks, tell_once

ORIENTATION = 0x0112  # of EXIF, and of TIFF itself
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
# What of a PNG may hold its orientation; Pillow decodes the picture to look for it.
WITH_EXIF = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
Value = TypeVar("Value", bound=np.generic)


def turn_of(picture: Image.Image, data: bytes) -> int:
    """Return the value of the tag by which a picture is to be turned; 1 for none. Pillow turns TIFF by itself.

    Args:
        data: the file's content where it was read.
    """
    if picture.format == "TIFF" or (picture.format == "PNG" and data and not chunks(data) & WITH_EXIF):
        return 1
    return int(picture.getexif().get(ORIENTATION, 1))


def turned(image: NDArray[Value], tag: int) -> NDArray[Value]:
    """Return (H, W, ...) as it is to be shown, by the value of its tag; (W, H, ...) for values from 5 on."""
    if tag >= 5:
        image = image.swapaxes(0, 1)
    down, across = (-1 if tag in (3, 4, 7, 8) else 1), (-1 if tag in (2, 3, 6, 7) else 1)
    return image[::down, ::across]


def tell_turned(name: str) -> None:
    """Say once that a picture would be shown turned, and is not."""
    tell_once(
        "turned",
        f"{name}: its EXIF tag says that the picture is to be shown turned. In training pixels are taken as "
        "they are stored, as most data sets' labels are drawn; if yours were drawn upright, turn the files "
        "themselves",
    )
