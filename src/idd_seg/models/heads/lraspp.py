"""The light head of mobile networks.

A. Howard et al., "Searching for MobileNetV3", ICCV 2019: LR-ASPP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.layers import conv_bn_relu, resize_to


class LRASPPHead(nn.Module):
    """The last level, weighted by what the whole image says of each channel, beside the second level.

    The paper classifies both by a 1 x 1 convolution each and adds the logits: the same function as one 1 x 1
    convolution over both side by side, which is what the network's classifier does with this head's map. The image mean
    is over the whole map, where the paper has a large window.

    Args:
        channels: widths of the backbone's levels; the second and the last are read.
        strides: their strides (not used here; heads are built alike).
        width: width to which the last level is brought.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 128) -> None:
        super().__init__()
        self.high = conv_bn_relu(channels[-1], width)
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels[-1], width, 1, bias=False), nn.Sigmoid())
        self.channels = width + channels[1]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the second one's grid."""
        high = self.high(maps[-1]) * self.image(maps[-1])
        return torch.cat([resize_to(high, maps[1]), maps[1]], dim=1)
