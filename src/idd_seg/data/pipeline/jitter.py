"""Colour jitter on the device, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from idd_seg.errors import ConfigError

GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue in the luminance (ITU-R BT.601)


class ColourJitter(NamedTuple):
    """Ranges of what is drawn for each image: three factors, and a turn of the hue as a share of the circle."""

    brightness: tuple[float, float]
    contrast: tuple[float, float]
    saturation: tuple[float, float]
    hue: tuple[float, float]
    p: float

    @classmethod
    def like(cls, photometric: Sequence[Any] | None) -> ColourJitter | None:
        """Take the ranges of a transform of albumentations; None without any.

        Raises:
            ConfigError: for other transforms than one colour jitter.
        """
        if not photometric:
            return None
        names = [type(transform).__name__ for transform in photometric]
        if names != ["ColorJitter"]:
            raise ConfigError(
                f"data.augment.on_device=true takes one albumentations.ColorJitter in data.augment.photometric, got "
                f"{', '.join(names)}; use on_device=false"
            )
        (one,) = photometric
        return cls(_range(one.brightness), _range(one.contrast), _range(one.saturation), _range(one.hue), float(one.p))

    def draw(self, rng: Generator) -> NDArray[np.float32]:
        """Return an image's four numbers; (1, 1, 1, 0) where it keeps its colours."""
        numbers = [rng.uniform(*x) for x in (self.brightness, self.contrast, self.saturation, self.hue)]
        return np.array(numbers if rng.random() < self.p else [1, 1, 1, 0], np.float32)


def _range(bounds: Sequence[float]) -> tuple[float, float]:
    low, high = bounds
    return float(low), float(high)


def recoloured(image: Tensor, colours: Tensor, white: float = 255) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order; each step's result is kept in 0 to `white`.

    Of other than three channels, whose colours are not known, saturation and hue stay; grey is their mean.

    Args:
        image: (N, C, H, W) RGB or others, of whole numbers or float, 0 to `white`.
        colours: (N, 4), as `ColourJitter.draw` gives them.

    Returns:
        (N, C, H, W) float32, 0 to `white`.
    """
    bright, contrast, saturation, hue = colours.to(image.device).T.reshape(4, -1, 1, 1, 1)
    x = (image.float() * bright).clamp_(0, white)
    middle = _grey(x).mean((1, 2, 3), keepdim=True)
    x = torch.lerp(middle, x, contrast).clamp_(0, white)
    if x.shape[1] != len(GREY):
        return x
    x = torch.lerp(_grey(x), x, saturation).clamp_(0, white)
    return _turned(x, hue[:, 0])


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != len(GREY):
        return x.mean(1, keepdim=True)
    return (x * x.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue (N, 1, 1) of HSV, which leaves the largest and the smallest of the three channels as they are."""
    high, low = x.amax(1), x.amin(1)
    chroma = high - low
    safe = torch.where(chroma > 0, chroma, 1)
    red, green, blue = x.unbind(1)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sector = sector + 6 * turn
    # Each channel is at its height within a third of the circle, and falls to the lowest over a sixth beside it.
    channels = [high - chroma * (2 - ((sector + shift) % 6 - 3).abs()).clamp(0, 1) for shift in (0, 4, 2)]
    return torch.stack(channels, 1)
