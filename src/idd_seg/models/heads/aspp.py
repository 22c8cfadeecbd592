"""Atrous spatial pyramid pooling.

L.-C. Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.layers import conv_bn_relu

BASE_RATES = (6, 12, 18)  # at stride 16, in the paper's table; twice as large at stride 8


class Pyramid(nn.Module):
    """A 1 x 1 and dilated 3 x 3 convolutions of the last level, and the image mean, side by side.

    Args:
        channels: widths of the backbone's levels; the last one is read.
        strides: their strides; the last one sets the rates.
        width: width of every branch.
        rates: dilations of the 3 x 3 convolutions; from the stride by default.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        last = channels[-1]
        rates = rates or [max(1, rate * 16 // strides[-1]) for rate in BASE_RATES]
        self.branches = nn.ModuleList(
            [conv_bn_relu(last, width), *(conv_bn_relu(last, width, kernel=3, dilation=rate) for rate in rates)]
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(last, width))

    def pyramid(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, width * (2 + len(rates)), h, w)."""
        whole = self.image(x).expand(-1, -1, *x.shape[-2:])
        return torch.cat([*(branch(x) for branch in self.branches), whole], dim=1)


class ASPPHead(Pyramid):
    """DeepLabV3's head: a 1 x 1 and three dilated 3 x 3 convolutions and the image mean, fused by a 3 x 3 convolution.

    Args: as `Pyramid`; `width` is that of the head's map, too.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, strides, width, rates)
        self.channels = width
        self.fuse = nn.Sequential(
            conv_bn_relu(width * (len(self.branches) + 1), width), conv_bn_relu(width, width, kernel=3)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the last one's grid."""
        return self.fuse(self.pyramid(maps[-1]))  # type: ignore[no-any-return]
