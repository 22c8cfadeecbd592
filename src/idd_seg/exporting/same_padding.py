"""TensorFlow's "same" padding, whose width depends on the picture's size, in a form that can be written for any size.

timm computes the width of the padding; sizes behind several such layers are then terms that grow with each layer, and
PyTorch does not come to an end with them. Here the rows that a convolution needs are chosen by their places, so that
the size behind it is a short term of the size before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AnySizeSameConv(nn.Module):
    """A convolution with "same" padding: of a side of n pixels it makes ceil(n / stride)."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, O, ceil(h / stride), ceil(w / stride))."""
        conv = self.convolution
        kernel, stride, dilation = conv.kernel_size, conv.stride, conv.dilation
        for axis, place in ((0, -2), (1, -1)):
            x = _needed(x, place, stride[axis], dilation[axis] * (kernel[axis] - 1))
        return F.conv2d(x, conv.weight, conv.bias, stride, 0, dilation, conv.groups)


def _needed(x: Tensor, axis: int, stride: int, reach: int) -> Tensor:
    """Pad a side, and leave what a convolution without padding takes; `reach`: pixels from its first to its last.

    `reach` zeros before and behind hold all paddings that there can be.
    """
    length = x.shape[axis]
    places = (length + stride - 1) // stride
    taken = (places - 1) * stride + reach + 1
    before = torch.sym_max(taken - length, 0) // 2
    padding = [reach, reach] if axis == -1 else [0, 0, reach, reach]
    return F.pad(x, padding).index_select(axis, torch.arange(taken) + (reach - before))
