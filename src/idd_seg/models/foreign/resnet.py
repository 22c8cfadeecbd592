"""Dilated ResNets in the naming that segmentation's checkpoints share: `layer1.0.conv1`, `bn1`, `downsample.0`.

K. He et al., "Deep residual learning for image recognition", CVPR 2016; the deep stem of three 3 x 3 convolutions is
that of H. Zhao et al., "Pyramid scene parsing network", CVPR 2017.
"""

from __future__ import annotations

from torch import Tensor, nn

from idd_seg.errors import ConfigError

# Blocks of the four stages, and whether they are bottlenecks of three convolutions.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
STRIDES = (1, 2, 1, 1)  # after the stem's 4: stride 8 in all
DILATIONS = (1, 1, 2, 4)
WIDEST = 1024


class Block(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 of a bottleneck, beside a shortcut.

    Args:
        channels, width: of the input, and of the inner convolutions; the output is 4 times as wide in a bottleneck.
        dilation: of the convolution that may have a stride.
        second: dilation of a plain block's second convolution.
    """

    def __init__(self, channels: int, width: int, bottleneck: bool, stride: int, dilation: int, second: int) -> None:
        super().__init__()
        self.width = width * (4 if bottleneck else 1)
        self.relu = nn.ReLU(inplace=True)
        first = 1 if bottleneck else 3
        self.conv1 = _conv(channels, width, first, *((1, 1) if bottleneck else (stride, dilation)))
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, *((stride, dilation) if bottleneck else (1, second)))
        self.bn2 = nn.BatchNorm2d(width)
        self.bottleneck = bottleneck
        if bottleneck:
            self.conv3 = _conv(width, self.width, 1)
            self.bn3 = nn.BatchNorm2d(self.width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != self.width:
            self.downsample = nn.Sequential(_conv(channels, self.width, 1, stride), nn.BatchNorm2d(self.width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + shortcut)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """Four stages of stride 4, 8, 8, 8; a subclass brings the stem, of stride 2 and `2 * base` channels.

    The first block of a dilated stage has half of the stage's dilation.

    Args:
        depth: 18, 34, 50, 101 or 152.
        base: width of the first stage's inner convolutions; 64 in all published networks.
        dilate_second: dilate a plain block's second convolution too (depths 18 and 34).

    Attributes:
        widths: of the four stages.

    Raises:
        ConfigError: for another depth, or a width out of range.
    """

    def __init__(self, depth: int, base: int = 64, dilate_second: bool = True) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ConfigError(f"teacher.model.depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        check_width("base", base)
        counts, bottleneck = DEPTHS[depth]
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.widths: list[int] = []
        channels = 2 * base
        for i, count in enumerate(counts):
            dilation = DILATIONS[i]
            blocks = []
            for j in range(count):
                stride, own = (STRIDES[i], max(1, dilation // 2)) if j == 0 else (1, dilation)
                second = dilation if dilate_second else 1
                blocks.append(Block(channels, base << i, bottleneck, stride, own, second))
                channels = blocks[-1].width
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.widths.append(channels)

    def stem_of(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2 * base, H / 2, W / 2)."""
        raise TypeError(f"{type(self).__name__} does not implement stem_of")

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps (N, widths[i], H / s, W / s), s = 4, 8, 8, 8."""
        x = self.maxpool(self.stem_of(image))
        maps = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


def check_width(name: str, width: int) -> None:
    """Raise a ConfigError for a width that no network has: a description may come with a stranger's file."""
    if not 1 <= width <= WIDEST:
        raise ConfigError(f"teacher.model.{name} must be 1 to {WIDEST}, got {width}")


def _conv(channels: int, width: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)


def stem_convolutions(base: int) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the deep stem's convolutions, 3 to `base` to `base` to `2 * base`, each with its BatchNorm."""
    widths = (3, base, base, 2 * base)
    return [(_conv(widths[i], widths[i + 1], 3, 2 if i == 0 else 1), nn.BatchNorm2d(widths[i + 1])) for i in range(3)]


def stages(maps: list[Tensor]) -> dict[str, Tensor]:
    """Name the stages' maps as those of our own networks: `stage1` to `stage4`."""
    return {f"stage{i + 1}": x for i, x in enumerate(maps)}
