"""What a pixel of a data set holds: so many channels of so many bits; and such pictures as people look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from idd_seg.data.pipeline.source import Raster, UInt8

Bits = Literal[8, 16]
MOST_CHANNELS = 64
SHOWN = (2.0, 98.0)  # percentiles of a 16-bit picture that become black and white


@dataclass(frozen=True)
class Pixels:
    """Channels of a pixel, and bits of a channel.

    Attributes:
        channels: 1 to `MOST_CHANNELS`.
        bits: 8 or 16, unsigned.
    """

    channels: int = 3
    bits: int = 8

    @property
    def photograph(self) -> bool:
        """Whether pictures are photographs, which become RGB of 8 bits whatever their files hold."""
        return self == RGB

    @property
    def white(self) -> int:
        """The largest value: 255 or 65535."""
        return int(2**self.bits) - 1

    @property
    def dtype(self) -> Any:
        """The values' type in arrays."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def bytes(self) -> int:
        """Bytes of a pixel."""
        return self.channels * self.bits // 8

    def fits(self, image: Raster) -> bool:
        """Tell whether (H, W, C) is a picture of this kind."""
        return image.ndim == 3 and image.shape[2] == self.channels and image.dtype == self.dtype

    def __str__(self) -> str:
        return f"{self.channels} channel{'' if self.channels == 1 else 's'} of {self.bits} bits"


RGB = Pixels()


def viewable(image: Raster) -> UInt8:
    """Return a picture (H, W, C) as people look at it: (H, W, 3) uint8 RGB.

    RGB of 8 bits is returned as it is. Else the first three channels are taken for red, green and blue, or the first
    one for grey; values of 16 bits are spread between the percentiles of `SHOWN` of these channels.
    """
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    shown = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown, np.uint8)
    low, high = np.percentile(shown, SHOWN)
    spread = (shown.astype(np.float32) - low) * (255 / max(1.0, high - low))
    found: UInt8 = spread.clip(0, 255).round().astype(np.uint8)
    return found
