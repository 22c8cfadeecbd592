"""A head of 1 x 1 convolutions over all levels.

E. Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.layers import conv_bn_relu, resize_to


class SegFormerHead(nn.Module):
    """Every level brought to one width and to the first one's grid, and a 1 x 1 convolution over all of them.

    Args:
        channels: widths of the backbone's levels; all are read.
        strides: their strides (not used here; heads are built alike).
        width: width of every level and of the head's map; the paper has 256 for B0 and B1, 768 above.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.channels = width
        self.levels = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        self.fuse = conv_bn_relu(width * len(channels), width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the first one's grid."""
        first, *others = (level(x) for level, x in zip(self.levels, maps, strict=True))
        return self.fuse(torch.cat([first, *(resize_to(x, first) for x in others)], dim=1))  # type: ignore[no-any-return]
