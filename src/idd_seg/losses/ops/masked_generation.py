"""Features with holes from which a small network must generate the teacher's whole map."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import require_equal_widths
from idd_seg.losses.ops.grid import as_float32, no_autocast

Generate = Callable[[Tensor], Tensor]


class Generator(nn.Module):
    """3 x 3 convolution, ReLU, 3 x 3 convolution, all of one width, computed in float32 (float64 stays).

    It is trained with the student and is no part of it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        x = as_float32(x)
        with no_autocast(x):
            return _convolve(self.second, _convolve(self.first, x).relu_())


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.conv2d(x, layer.weight.to(x.dtype), bias, padding=1)


def kept_positions(features: Tensor, mask_ratio: float) -> Tensor:
    """Draw which positions (N, 1, h, w) of features (N, C, h, w) stay; each is dropped with probability `mask_ratio`.

    One draw counts for all channels of a position.
    """
    n, _, height, width = features.shape
    return torch.rand(n, 1, height, width, device=features.device) >= mask_ratio


def generated_from(student: Tensor, teacher: Tensor, kept: Tensor, generate: Generate) -> Tensor:
    """Return what is generated from the student's features where they were kept, zeros elsewhere.

    Args:
        student: (N, C, h, w), already in the teacher's width.
        teacher: (N, C, ...).
        kept: (N, 1, h, w) bool.

    Raises:
        ValueError: if the widths differ.
    """
    require_equal_widths(student, teacher)
    return generate(student * kept)


def check_mask_ratio(mask_ratio: float) -> None:
    """Raise a ValueError for a share of dropped positions outside [0, 1)."""
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio must be in [0, 1), got {mask_ratio}")
