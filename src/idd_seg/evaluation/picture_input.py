"""Pictures as users have them, upright; read by the same code as those of a training."""

from __future__ import annotations

from pathlib import Path

from idd_seg.data.pipeline.decode import read_image, size_of, to_rgb
from idd_seg.data.pipeline.picture_file import FORMATS, MAX_PIXELS
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES as SUFFIXES
from idd_seg.data.pipeline.source import UInt8

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "read_picture", "size_of", "to_rgb"]


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read a picture as (H, W, 3) uint8 RGB, upright as its EXIF tag says.

    Raises:
        DataError: as `read_image`.
    """
    return read_image(path, max_pixels, upright=True)
