"""Which pictures a backbone takes, found out by showing it two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.errors import ConfigError
from idd_seg.models.layers import exporting

THIN, ODD, EVEN = (1, 33), (33, 65), (64, 96)
Maps = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Sizes:
    """The sides of pictures that a backbone takes: multiples of `multiple` pixels, `least` or more."""

    least: int = 1
    multiple: int = 1

    def fit(self, image: Tensor) -> Tensor:
        """Return the picture as it is where it fits, else scaled up, bilinearly, to the next size that does."""
        sides = image.shape[-2:]
        if self.multiple > 1:
            size = [(side + self.multiple - 1) // self.multiple * self.multiple for side in sides]
        elif self.least == 1 or (not exporting() and min(sides) >= self.least):
            return image
        else:
            # What is exported takes small and large pictures, and scales those that fit by one.
            size = [torch.sym_max(side, self.least) for side in sides]  # type: ignore[misc]
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def find_sizes(maps: Maps, name: str, channels: Sequence[int], strides: Sequence[int], in_channels: int = 3) -> Sizes:
    """Return the sizes that a backbone in evaluation mode takes.

    Raises:
        ConfigError: if it takes none but its own, or does not give maps of the widths and strides that it announces.
    """
    _show(maps, name, channels, strides, in_channels)
    if _takes(maps, THIN, in_channels, strides):
        return Sizes()
    # Those that round down have nothing left of a picture that is smaller than the last stride.
    return Sizes(least=strides[-1]) if _takes(maps, ODD, in_channels) else Sizes(strides[-1], strides[-1])


def _takes(maps: Maps, size: tuple[int, int], in_channels: int, strides: Sequence[int] | None = None) -> bool:
    """Tell whether a picture of this size can be shown, and by option whether the maps' sides are rounded up."""
    try:
        found = maps(torch.zeros(1, in_channels, *size))
    except (RuntimeError, AssertionError, ValueError):
        return False
    if strides is None:
        return True
    return all(m.shape[-2:] == tuple(math.ceil(side / s) for side in size) for m, s in zip(found, strides, strict=True))


def _show(maps: Maps, name: str, channels: Sequence[int], strides: Sequence[int], in_channels: int) -> None:
    height, width = EVEN
    try:
        found = [tuple(m.shape) for m in maps(torch.zeros(1, in_channels, height, width))]
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"backbone '{name}' does not take pictures of any size, as a student must ({height} x {width}: {reason}); "
            "where timm has an option for that, give it, as +student.options.strict_img_size=false for Swin"
        ) from error
    expected = [(1, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)]
    if found != expected:
        raise ConfigError(f"backbone '{name}' gives maps of {found} where it announces {expected}")
