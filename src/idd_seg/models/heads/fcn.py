"""Convolutions alone.

J. Long et al., "Fully convolutional networks for semantic segmentation", CVPR 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from idd_seg.models.layers import conv_bn_relu


class FCNHead(nn.Module):
    """3 x 3 convolutions of the last level of a dilated backbone.

    Args:
        channels: widths of the backbone's levels; the last one is read.
        strides: their strides (not used here; heads are built alike).
        width: width of the head's map; a quarter of the last level by default.
        depth: number of convolutions.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int | None = None, depth: int = 1
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.channels = width or max(1, channels[-1] // 4)
        widths = [channels[-1], *[self.channels] * depth]
        self.convs = nn.Sequential(*(conv_bn_relu(widths[i], widths[i + 1], kernel=3) for i in range(depth)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> (N, channels, h, w) on the last one's grid."""
        return self.convs(maps[-1])  # type: ignore[no-any-return]
