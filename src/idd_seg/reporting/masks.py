"""Class ids from the pictures of a run, which may be anybody's: small PNGs with a palette, or a note."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.reporting.files import UnreadableError

SIDE = 4096  # pixels of a picture, at most
MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def ids_of(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the indices (H, W) of a palette PNG.

    Raises:
        UnreadableError: if it is none, is too large, or broken.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if picture.mode != "P" or max(picture.size) > SIDE:
                raise UnreadableError(f"{name} is no PNG with a palette, or has more than {SIDE} pixels a side")
            return np.asarray(picture)
    except UnreadableError:
        raise
    except Exception as error:  # what a broken picture raises is of many kinds
        raise UnreadableError(f"{name} can't be decoded: {type(error).__name__}") from None


def uri_of(content: bytes, name: str) -> str:
    """Return a PNG or JPEG as a data URI.

    Raises:
        UnreadableError: if it is neither.
    """
    kind = next((mime for magic, mime in MAGIC.items() if content.startswith(magic)), None)
    if kind is None:
        raise UnreadableError(f"{name} is no PNG or JPEG")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png_of(ids: NDArray[np.uint8], colours: tuple[tuple[int, int, int], ...]) -> bytes:
    """Return (H, W) indices as a PNG with these few colours."""
    picture = Image.fromarray(ids)
    picture.putpalette([channel for colour in colours for channel in colour])
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True, bits=4)
    return out.getvalue()


def shown_in(masks: Iterable[NDArray[np.uint8]], classes: int) -> list[int]:
    """Return which of so many classes masks show, by id."""
    found = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    return [int(value) for value in found if value < classes]
