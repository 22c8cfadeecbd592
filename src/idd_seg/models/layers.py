"""The building block that all heads share."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(channels: int, width: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution of the same output size, BatchNorm, ReLU: (N, channels, h, w) -> (N, width, h, w)."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
