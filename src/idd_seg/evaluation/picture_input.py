"""Pictures as users have them, upright; read by the same code as those of a training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from idd_seg.data.pipeline.decode import read_image, size_of, to_rgb
from idd_seg.data.pipeline.picture_file import FORMATS, MAX_PIXELS
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES as SUFFIXES
from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Raster
from idd_seg.errors import DataError

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "Picture", "as_picture", "read_picture", "size_of", "to_rgb"]

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | NDArray[np.uint16] | Tensor"


def read_picture(path: Path, max_pixels: int = MAX_PIXELS, pixels: Pixels = RGB) -> Raster:
    """Read a picture as (H, W, 3) uint8 RGB, or as `pixels` says, upright as its EXIF tag says.

    Raises:
        DataError: as `read_image`.
    """
    return read_image(path, max_pixels, upright=True, pixels=pixels)


def as_picture(image: Picture, pixels: Pixels = RGB) -> Raster:
    """Return a picture as (H, W, C) of `pixels`: uint8 RGB, or of other channels, or uint16.

    Photographs of other kinds become RGB; of other channels or bits nothing is converted.

    Raises:
        DataError: for a file that can't be read, or an array or tensor of another kind.
    """
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image), pixels=pixels)
    if isinstance(image, Image.Image):
        return to_rgb(image, "the image") if pixels.photograph else _from_array(_array_of(image), pixels)
    if isinstance(image, Tensor):
        return _from_tensor(image, pixels)
    if not isinstance(image, np.ndarray):
        raise DataError(f"a picture is a path, a PIL image, an array or a tensor, got a {type(image).__name__}")
    return _from_array(image, pixels)


def _array_of(image: Image.Image) -> NDArray[np.uint8 | np.uint16]:
    """Return a PIL image's values; Pillow has 16 bits in grey alone."""
    values: NDArray[np.uint8 | np.uint16] = np.asarray(image)
    return values.astype(np.uint16) if image.mode.startswith("I;16") else values


def _from_array(image: NDArray[np.uint8 | np.uint16], pixels: Pixels) -> Raster:
    channels = pixels.channels
    grey = image.ndim == 2 and (channels == 1 or pixels.photograph)
    if image.dtype != pixels.dtype or not (grey or (image.ndim == 3 and image.shape[2] == channels)) or not image.size:
        flat = " or (H, W)" if channels == 1 or pixels.photograph else ""
        raise DataError(f"an array must be (H, W, {channels}){flat} {pixels.dtype}, got {image.shape} {image.dtype}")
    return np.ascontiguousarray(np.repeat(image[..., None], channels, axis=2) if image.ndim == 2 else image)


def _from_tensor(image: Tensor, pixels: Pixels) -> Raster:
    channels, name = pixels.channels, str(pixels.dtype)
    if image.dim() != 3 or image.shape[0] != channels or not image.numel():
        raise DataError(f"a tensor must be ({channels}, H, W), got {tuple(image.shape)}; several pictures are a list")
    kind = getattr(torch, name)
    if image.is_floating_point():
        if not (image.min() >= 0 and image.max() <= 1):
            what = "RGB " if pixels.photograph else ""
            raise DataError(f"a tensor of floating-point numbers must be {what}from 0 to 1, not normalised")
        image = (image.float() * pixels.white).round().to(kind)
    elif image.dtype != kind:
        raise DataError(f"a tensor must be {name}, or floating-point from 0 to 1, got {image.dtype}")
    return np.ascontiguousarray(image.detach().permute(1, 2, 0).cpu().numpy())
