"""Features with holes from which a small network must generate the teacher's whole map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from idd_seg.losses.ops.adapters import require_equal_widths
from idd_seg.losses.ops.grid import as_float32, no_autocast

Generate = Callable[[Tensor, Tensor], Tensor]


class Generator(nn.Module):
    """3 x 3 convolution, ReLU, 3 x 3 convolution, all of one width, computed in float32 (float64 stays).

    It is trained with the student and is no part of it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Features (N, C, h, w), of which the positions `kept` (N, 1, h, w) are seen -> the same shape."""
        x = as_float32(x)
        with no_autocast(x):
            hidden: Tensor = _KeptConvolution.apply(x, kept, *_parameters(self.first, x.dtype))
            return F.conv2d(hidden.relu_(), *_parameters(self.second, x.dtype), padding=1)


def _parameters(layer: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight.to(dtype), layer.bias.to(dtype)


class _KeptConvolution(torch.autograd.Function):
    """A 3 x 3 convolution of x * kept, which keeps x and not the product: a map less."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, kept, weight)
        return F.conv2d(x * kept, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        x, kept, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[2]:
            to_weight = conv2d_weight(x * kept, weight.shape, gradient, padding=1)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[3]:
            to_bias = gradient.sum((0, 2, 3))
        if ctx.needs_input_grad[0]:
            to_x = conv2d_input(x.shape, weight, gradient, padding=1).mul_(kept)  # type: ignore[no-untyped-call]
        return to_x, None, to_weight, to_bias


def kept_positions(features: Tensor, mask_ratio: float) -> Tensor:
    """Draw which positions (N, 1, h, w) of features (N, C, h, w) stay; each is dropped with probability `mask_ratio`.

    One draw counts for all channels of a position.
    """
    n, _, height, width = features.shape
    return torch.rand(n, 1, height, width, device=features.device) >= mask_ratio


def generated_from(student: Tensor, teacher: Tensor, kept: Tensor, generate: Generate) -> Tensor:
    """Return what is generated from the student's features where they are kept.

    Args:
        student: (N, C, h, w), already in the teacher's width.
        teacher: (N, C, ...).
        kept: (N, 1, h, w) bool.

    Raises:
        ValueError: if the widths differ.
    """
    require_equal_widths(student, teacher)
    return generate(student, kept)


def check_mask_ratio(mask_ratio: float) -> None:
    """Raise a ValueError for a share of dropped positions outside [0, 1)."""
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio must be in [0, 1), got {mask_ratio}")
