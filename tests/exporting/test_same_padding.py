""" "Same" padding for any size: equal to timm's, and written in a time that does not grow with the layers."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from idd_seg.exporting.graph import of_any_size
from idd_seg.exporting.onnx_file import any_shape
from idd_seg.exporting.same_padding import AnySizeSameConv
from idd_seg.ops.private_api import sides_of_one


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [(3, 2, 1), (5, 2, 1), (3, 1, 2), (1, 2, 1), (2, 2, 1), (3, 3, 1), (7, 2, 1), (4, 1, 1), ((3, 5), (2, 1), 1)],
)
def test_equal_to_the_layer_itself(kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = Conv2dSame(3, 4, kernel, stride, dilation=dilation)
    for height in range(1, 14):
        x = torch.randn(2, 3, height, 2 * height + 1)
        torch.testing.assert_close(AnySizeSameConv(layer)(x), layer(x))


def test_five_layers_are_exported() -> None:
    """With timm's own layers this takes minutes: the terms of the sizes grow with each."""
    network = of_any_size(nn.Sequential(*(Conv2dSame(3, 3, 3, 2) for _ in range(5)), nn.ReLU()))
    with sides_of_one():
        exported = torch.export.export(network, (torch.randn(2, 3, 96, 112),), dynamic_shapes=(any_shape(),))
    program = exported.module()
    for shape in ((2, 3, 96, 112), (1, 3, 33, 250), (1, 3, 17, 9)):
        picture = torch.randn(shape)
        torch.testing.assert_close(program(picture), network(picture))
