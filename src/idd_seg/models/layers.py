"""The building blocks that all heads share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(channels: int, width: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution of the same output size, BatchNorm, ReLU: (N, channels, h, w) -> (N, width, h, w)."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def resize_to(x: Tensor, like: Tensor) -> Tensor:
    """Bring (N, C, h, w) bilinearly to the grid of another map."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class GridMeans(nn.AdaptiveAvgPool2d):
    """Means over a grid of `bins` x `bins` cells, which may overlap by a row: (N, C, h, w) -> (N, C, bins, bins).

    The same as its base. Where the network is exported for pictures of any size, it is written as two products with
    matrices that depend on the size: exporters fix the cells of the base at the size of their example. So it is on a
    GPU with `deterministic=true`, where PyTorch refuses the gradient of its base.
    """

    def __init__(self, bins: int) -> None:
        super().__init__(bins)
        self.bins = bins

    def forward(self, input: Tensor) -> Tensor:
        if exporting():
            return self._by_products(input)
        if input.is_cuda and input.requires_grad and torch.are_deterministic_algorithms_enabled():
            # Shares of cells in half precision would not add up to 1.
            with torch.autocast("cuda", enabled=False):
                return self._by_products(input.float()).to(input.dtype)
        return super().forward(input)

    def _by_products(self, x: Tensor) -> Tensor:
        rows, columns = (self._cells(side, x) for side in x.shape[-2:])
        return rows @ x @ columns.transpose(0, 1)

    def _cells(self, side: int, like: Tensor) -> Tensor:
        """(bins, side): the share of each row or column in each cell."""
        cell = torch.arange(self.bins, device=like.device)[:, None]
        place = torch.arange(side, device=like.device)[None]
        # Cell i begins at floor(i * side / bins) and ends before ceil((i + 1) * side / bins).
        begin, end = cell * side // self.bins, ((cell + 1) * side + self.bins - 1) // self.bins
        inside = ((place >= begin) & (place < end)).to(like.dtype)
        return inside / (end - begin).to(like.dtype)


def exporting() -> bool:
    """Tell whether the network is being written down for other programs rather than run."""
    # Newer releases tell an export from a compilation.
    asked = getattr(torch.compiler, "is_exporting", None)
    return bool(torch.onnx.is_in_onnx_export() or (asked is not None and asked()))
