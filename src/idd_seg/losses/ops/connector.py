"""The connector that brings a weighed map to another width, and its distance to the teacher's, in few maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.attention import normalised
from idd_seg.losses.ops.grid import as_float32, no_autocast
from idd_seg.ops.precision import Widening


class Connector(Widening):
    """1 x 1 convolution without bias, and BatchNorm, from the student's width to the teacher's, in float32."""

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        nn.init.normal_(self.conv.weight, std=(2 / teacher_width) ** 0.5)
        self.norm = nn.BatchNorm2d(teacher_width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cs, h, w) -> (N, Ct, h, w)."""
        x = as_float32(x)
        with no_autocast(x):
            return normalised(self.norm, self.conv(x))

    def distance(self, x: Tensor, channels: Tensor, positions: Tensor, teacher: Tensor) -> Tensor:
        """Return `scaled_distance` of the connected x * channels * positions to the teacher's map.

        What BatchNorm and distance make of the convolution's map follows from a few sums for each channel, so that map
        and teacher alone are kept for the gradient.

        Args:
            x: (N, Cs, h, w), float32 at least.
            channels, positions: weights (N, Cs, 1, 1) and (N, 1, h, w).
            teacher: (N, Ct, h, w), without gradient.
        """
        weight = self.conv.weight[:, :, 0, 0].to(x.dtype)
        with no_autocast(x):
            narrow = torch.bmm(weight * channels[..., 0].mT, x.flatten(2))
            sums = _ChannelSums.apply(narrow, positions.flatten(2), teacher.flatten(2))
        # In float64: variance and distance are differences of near equal sums.
        count = narrow.shape[0] * narrow.shape[2]
        total, squares, products = (s.double() for s in sums)
        scale, shift = self._affine(total, squares, count)
        length = (scale.square() * squares + 2 * scale * shift * total + count * shift.square()).sum()
        theirs = teacher.sum((0, 2, 3)).double()
        own = teacher.double().square().sum() if count < 64 else torch.linalg.vector_norm(teacher).double().square()
        inner = (scale * products + shift * theirs).sum()
        inverse = torch.where(length > 0, length, torch.inf).rsqrt() * torch.where(own > 0, own, torch.inf).rsqrt()
        return ((length > 0).double() + (own > 0).double() - 2 * inner * inverse).to(x.dtype)

    def _affine(self, total: Tensor, squares: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return factor and summand (C,) of the BatchNorm, and move its running statistics on in training."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        if norm.training and count > 1:
            mean = total / count
            variance = (squares / count - mean.square()).clamp(min=0)
            with torch.no_grad():
                momentum = norm.momentum or 0.0
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
                norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var.dtype), momentum)
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.add_(1)
        else:
            mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = norm.weight.double() * (variance + norm.eps).rsqrt()
        return scale, norm.bias.double() - mean * scale


class _ChannelSums(torch.autograd.Function):
    """Of o = y * positions: the sums over images and positions of o, o^2 and o * teacher, for each channel."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, positions: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(y, positions, teacher)
        out = y * positions
        total, squares = out.sum((0, 2)), torch.linalg.vector_norm(out, dim=(0, 2)).square()
        return total, squares, out.mul_(teacher).sum((0, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        y, positions, teacher = ctx.saved_tensors
        total, squares, products = (g[:, None] for g in gradients)
        out = (y * positions).mul_(2 * squares).add_(total).addcmul_(teacher, products)
        to_positions = (out * y).sum(1, keepdim=True)
        return out.mul_(positions), to_positions, None
