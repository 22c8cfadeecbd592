"""Decode heads of mmsegmentation: their modules bear its names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BINS = (1, 2, 3, 6)
RATES = (1, 12, 24, 36)


class ConvModule(nn.Module):
    """Convolution of the same output size, BatchNorm, ReLU, named `conv` and `bn`."""

    def __init__(self, channels: int, width: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(channels, width, kernel, 1, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Separable(nn.Module):
    """A 3 x 3 convolution of each channel by itself, and a 1 x 1 over all of them."""

    def __init__(self, channels: int, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(channels, channels, 3, dilation, groups=channels)
        self.pointwise_conv = ConvModule(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))  # type: ignore[no-any-return]


class DecodeHead(nn.Module):
    """The classifier, `conv_seg`, that all heads end with.

    Args:
        channels: widths of the trunk's four stages.
        width: of the map before the classifier.
        align_corners: how maps are scaled; true in networks trained at 769 x 769.
    """

    def __init__(self, channels: Sequence[int], width: int, num_classes: int, align_corners: bool = False) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        self.align_corners = align_corners

    def scaled(self, x: Tensor, like: Tensor) -> Tensor:
        """Bring a map to the grid of another."""
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps -> the map before the classifier."""
        raise TypeError(f"{type(self).__name__} does not implement head")

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits and the map before the classifier."""
        head = self.head(maps)
        return self.conv_seg(head), head


class PSPHead(DecodeHead):
    """PSPNet: every mean over a grid becomes as wide as the head's map."""

    def __init__(self, channels: Sequence[int], width: int, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(channels, width, num_classes, align_corners)
        last = channels[-1]
        self.psp_modules = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(b), ConvModule(last, width)) for b in BINS)
        self.bottleneck = ConvModule(last + len(BINS) * width, width, 3)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        return self.bottleneck(torch.cat([x, *(self.scaled(p(x), x) for p in self.psp_modules)], dim=1))  # type: ignore[no-any-return]


class ASPPHead(DecodeHead):
    """DeepLabV3: the image mean, a 1 x 1 and three dilated 3 x 3 convolutions, fused by a 3 x 3 convolution."""

    def __init__(self, channels: Sequence[int], width: int, num_classes: int, align_corners: bool = False) -> None:
        super().__init__(channels, width, num_classes, align_corners)
        last = channels[-1]
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(last, width))
        self.aspp_modules = nn.ModuleList(self.branch(last, width, rate) for rate in RATES)
        self.bottleneck: nn.Module = ConvModule((len(RATES) + 1) * width, width, 3)

    def branch(self, channels: int, width: int, rate: int) -> nn.Module:
        """Return one branch; rate 1 is the 1 x 1 convolution."""
        return ConvModule(channels, width, 1 if rate == 1 else 3, rate)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        parts = [self.scaled(self.image_pool(x), x), *(branch(x) for branch in self.aspp_modules)]
        return self.bottleneck(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


class SeparableASPPHead(ASPPHead):
    """DeepLabV3+: separable convolutions, and the first stage's map beside the pyramid's.

    Args:
        c1_width: to which the first stage's map is narrowed.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        num_classes: int,
        align_corners: bool = False,
        c1_width: int = 48,
    ) -> None:
        super().__init__(channels, width, num_classes, align_corners)
        self.bottleneck = Separable((len(RATES) + 1) * width, width)
        self.c1_bottleneck = ConvModule(channels[0], c1_width)
        self.sep_bottleneck = nn.Sequential(Separable(width + c1_width, width), Separable(width, width))

    def branch(self, channels: int, width: int, rate: int) -> nn.Module:
        return super().branch(channels, width, rate) if rate == 1 else Separable(channels, width, rate)

    def head(self, maps: Sequence[Tensor]) -> Tensor:
        fine = self.c1_bottleneck(maps[0])
        return self.sep_bottleneck(torch.cat([self.scaled(super().head(maps), fine), fine], dim=1))  # type: ignore[no-any-return]
