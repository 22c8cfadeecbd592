"""Atrous spatial pyramid pooling.

L.-C. Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.layers import conv_bn_relu

BASE_RATES = (6, 12, 18)  # at stride 16, in the paper's table; twice as large at stride 8


class ASPPHead(nn.Module):
    """DeepLabV3's head: a 1 x 1 and three dilated 3 x 3 convolutions and the image mean, fused by a 3 x 3 convolution.

    Args:
        channels: widths of the backbone's levels; the last one is read.
        strides: their strides; the last one sets the rates.
        width: width of every branch and of the head's map.
        rates: dilations of the three branches; from the stride by default.
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
        self.channels = width
        self.branches = nn.ModuleList(
            [conv_bn_relu(last, width), *(conv_bn_relu(last, width, kernel=3, dilation=rate) for rate in rates)]
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(last, width))
        self.fuse = nn.Sequential(
            conv_bn_relu(width * (len(self.branches) + 1), width), conv_bn_relu(width, width, kernel=3)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the last one's grid."""
        x = maps[-1]
        whole = self.image(x).expand(-1, -1, *x.shape[-2:])
        return self.fuse(torch.cat([*(branch(x) for branch in self.branches), whole], dim=1))  # type: ignore[no-any-return]
