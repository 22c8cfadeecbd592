"""Decoding label maps, whose values must be exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from idd_seg.data.pipeline.picture_file import MAX_PIXELS, bits_of, opened, tell_transparent
from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError

EXACT = ("PNG", "BMP", "TIFF")  # formats that keep the values of a label map


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
        if mode.startswith(("I", "F")) or bits_of(picture, data) > 8:
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
            tell_transparent(picture, str(path))
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
    depth = bits_of(picture, data)
    # Pillow spreads grey values of 2 and 4 bits over 0 to 255.
    return values // (255 // (2**depth - 1)) if picture.mode == "L" and depth < 8 else values
