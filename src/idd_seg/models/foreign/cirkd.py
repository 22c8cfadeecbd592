"""Networks of CIRKD, https://github.com/winycg/CIRKD: C. Yang et al., CVPR 2022.

DeepLabV3 and PSPNet on ResNets with the deep stem, trained on BGR pictures, 0 to 255, less a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.network import ForeignNetwork
from idd_seg.models.foreign.resnet import ResNet, check_width, stages, stem_convolutions
from idd_seg.models.layers import conv_bn_relu

BINS = (1, 2, 3, 6)
RATES = (12, 24, 36)


class CIRKDResNet(ResNet):
    """The trunk; its stem is `conv1`, `bn1`, ... `conv3`, `bn3`."""

    def __init__(self, depth: int, base: int) -> None:
        super().__init__(depth, base)
        for i, (convolution, norm) in enumerate(stem_convolutions(base), start=1):
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", norm)

    def stem_of(self, image: Tensor) -> Tensor:
        x = image
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        return x


class Pyramid(nn.Module):
    """The map, and its means over grids of `BINS` cells a side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for i in range(len(BINS)):
            self.add_module(f"conv{i + 1}", conv_bn_relu(channels, channels // 4))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        pooled = [self.get_submodule(f"conv{i + 1}")(F.adaptive_avg_pool2d(x, b)) for i, b in enumerate(BINS)]
        wide = [F.interpolate(p, size, mode="bilinear", align_corners=True) for p in pooled]
        return torch.cat([x, *wide], dim=1)


class PSPPart(nn.Module):
    """Pyramid pooling; its state has CIRKD's names."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.psp = Pyramid(channels)
        self.block = conv_bn_relu(channels + len(BINS) * (channels // 4), width, kernel=3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the map before the classifier."""
        head = self.block(self.psp(x))
        return self.classifier(head), head


class Branch(nn.Module):
    """A dilated 3 x 3 convolution named `block`, or that of the image mean, named `gap`."""

    def __init__(self, channels: int, width: int, rate: int | None) -> None:
        super().__init__()
        if rate is None:
            self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_relu(channels, width))
        else:
            self.block = conv_bn_relu(channels, width, kernel=3, dilation=rate)
        self.whole = rate is None

    def forward(self, x: Tensor) -> Tensor:
        return self.gap(x).expand(-1, -1, *x.shape[-2:]) if self.whole else self.block(x)  # type: ignore[no-any-return]


class Spatial(nn.Module):
    """Atrous spatial pyramid pooling, fused by a 1 x 1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.b0 = conv_bn_relu(channels, width)
        for i, rate in enumerate((*RATES, None), start=1):
            self.add_module(f"b{i}", Branch(channels, width, rate))
        self.project = conv_bn_relu(5 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([self.get_submodule(f"b{i}")(x) for i in range(5)], dim=1))  # type: ignore[no-any-return]


class ASPPPart(nn.Module):
    """DeepLabV3's head; the classifier is the last of `block`, behind a dropout that trains alone."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.aspp = Spatial(channels, width)
        fuse = conv_bn_relu(width, width, kernel=3)
        self.block = nn.Sequential(*fuse, nn.Identity(), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and the map before the classifier."""
        head = self.block[:-1](self.aspp(x))
        return self.block[-1](head), head


class CIRKD(ForeignNetwork):
    """A trunk, named `pretrained`, and a head.

    Args:
        num_classes: None counts them in the file.
        input: the network's normalisation.
        head: `aspp` (DeepLabV3) or `psp` (PSPNet).
        depth: of the ResNet: 18, 50 or 101.
        width: of the head's map; None takes the project's: 512 in DeepLabV3, in PSPNet 256, 128 at depths 18 and 34.
        base: see `ResNet`.

    Raises:
        ConfigError: for an unknown head or depth, or a width out of range.
    """

    auxiliary: ClassVar[Sequence[str]] = ("auxlayer.",)
    classifiers: ClassVar[Sequence[str]] = ("head.classifier.weight", "head.block.4.weight")

    def __init__(
        self,
        num_classes: int | None,
        input: InputFormat,
        head: str = "aspp",
        depth: int = 101,
        width: int | None = None,
        base: int = 64,
    ) -> None:
        super().__init__(num_classes, input)
        self.pretrained = CIRKDResNet(depth, base)
        last = self.pretrained.widths[-1]
        parts = {"aspp": (ASPPPart, 512), "psp": (PSPPart, max(128, last // 8))}
        if head not in parts:
            raise ConfigError(f"teacher.model.head must be one of {', '.join(parts)}, got '{head}'")
        part, usual = parts[head]
        width = usual if width is None else width
        check_width("width", width)
        self.head = part(last, width, self.num_classes)

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.pretrained(image)
        logits, head = self.head(found[-1])
        return logits, {**stages(found), "head": head}
