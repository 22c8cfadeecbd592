"""Atrous spatial pyramid pooling with a skip to the first level.

L.-C. Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.heads.aspp import Pyramid
from idd_seg.models.layers import conv_bn_relu, resize_to


class DeepLabV3PlusHead(Pyramid):
    """DeepLabV3+'s decoder: the pyramid, enlarged, beside a narrow copy of the first level, and two 3 x 3 convolutions.

    Args:
        channels: widths of the backbone's levels; the first and the last are read.
        strides: their strides; the last one sets the rates.
        width: width of every branch of the pyramid and of the head's map.
        low_width: width to which the first level is brought.
        rates: dilations of the pyramid; from the stride by default.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        low_width: int = 48,
        rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, strides, width, rates)
        self.channels = width
        self.project = conv_bn_relu(width * (len(self.branches) + 1), width)
        self.low = conv_bn_relu(channels[0], low_width)
        self.fuse = nn.Sequential(
            conv_bn_relu(width + low_width, width, kernel=3), conv_bn_relu(width, width, kernel=3)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the first one's grid."""
        low = self.low(maps[0])
        high = resize_to(self.project(self.pyramid(maps[-1])), low)
        return self.fuse(torch.cat([high, low], dim=1))  # type: ignore[no-any-return]
