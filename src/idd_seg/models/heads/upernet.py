"""A feature pyramid under pyramid pooling.

T. Xiao et al., "Unified perceptual parsing for scene understanding", ECCV 2018: UPerNet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.layers import conv_bn_relu, resize_to


class UPerNetHead(nn.Module):
    """Pyramid pooling of the last level, added to the finer levels from the top down, and all of them fused.

    Args:
        channels: widths of the backbone's levels; all are read.
        strides: their strides (not used here; heads are built alike).
        width: width of every level of the pyramid and of the head's map.
        bins: grids of the pyramid pooling.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        bins: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        finer = channels[:-1]
        self.channels = width
        self.pool = PSPHead(channels, strides, width, bins)
        self.lateral = nn.ModuleList(conv_bn_relu(level, width) for level in finer)
        self.smooth = nn.ModuleList(conv_bn_relu(width, width, kernel=3) for _ in finer)
        self.fuse = conv_bn_relu(width * len(channels), width, kernel=3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the first one's grid."""
        levels = [self.pool(maps)]
        for lateral, x in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            side = lateral(x)
            levels.insert(0, side + resize_to(levels[0], side))
        smooth = [conv(x) for conv, x in zip(self.smooth, levels, strict=False)] + levels[-1:]
        return self.fuse(torch.cat([smooth[0], *(resize_to(x, smooth[0]) for x in smooth[1:])], dim=1))  # type: ignore[no-any-return]
