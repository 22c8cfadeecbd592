"""Pyramid pooling: H. Zhao et al., "Pyramid scene parsing network", CVPR 2017."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.models.layers import GridMeans, conv_bn_relu, resize_to


class PSPHead(nn.Module):
    """The last level, its means over grids of `bins` cells a side, and a 3 x 3 convolution over all of them.

    Args:
        channels: widths of the backbone's levels; the last one is read.
        strides: their strides (not used here; heads are built alike).
        width: width of the head's map; a quarter of the last level by default.
        bins: grids of the pyramid.

    Raises:
        ConfigError: for no grid, or one of less than a cell.

    Attributes:
        channels: width of the head's map.
        widths: of the grids' maps; the last level comes before them in the convolution.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int | None = None,
        bins: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        if not bins or min(bins) < 1:
            raise ConfigError(f"head.bins must be numbers of cells >= 1, got {list(bins)}")
        last = channels[-1]
        self.channels = width or last // 4
        self.bins = tuple(bins)
        self.widths = [max(1, last // len(bins))] * len(bins)
        self.branches = nn.ModuleList(
            nn.Sequential(GridMeans(bin), conv_bn_relu(last, each)) for bin, each in zip(bins, self.widths, strict=True)
        )
        self.fuse = conv_bn_relu(last + sum(self.widths), self.channels, kernel=3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the last one's grid."""
        x = maps[-1]
        pooled = [resize_to(branch(x), x) for branch in self.branches]
        return self.fuse(torch.cat([x, *pooled], dim=1))  # type: ignore[no-any-return]
