"""A segmentation network: backbone, head, classifier, and an auxiliary head for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.models.backbone import Backbone, Levels
from idd_seg.models.layers import conv_bn_relu
from idd_seg.types import Outputs


class HeadFactory(Protocol):
    """A head without its widths: the backbone is asked for them."""

    def __call__(self, channels: Sequence[int], strides: Sequence[int]) -> nn.Module: ...


class BackboneFactory(Protocol):
    """A backbone that is not of timm, without the options that all share."""

    def __call__(
        self, output_stride: int, options: Mapping[str, Any] | None, pretrained: bool, weights: str | None, **more: int
    ) -> Levels:
        """Build it; `in_channels` is among `more` where images have other than three channels."""
        ...


class Segmenter(nn.Module):
    """Logits and feature maps of an image.

    Args:
        backbone: a timm model's name, or what builds another backbone from the options below.
        head: builds the head from the backbone's widths and strides; the head has an attribute `channels`.
        num_classes: K.
        output_stride, options, pretrained, weights: see `Backbone`.
        auxiliary: give the third level a classifier of its own, used in training alone.
        dropout: share of the head's channels left out before the classifier in training.
        in_channels: of the images.

    Raises:
        ConfigError: for an unknown backbone or option, or fewer than two classes.
        CheckpointError: if weights are asked for and can't be had.
    """

    def __init__(
        self,
        backbone: str | BackboneFactory,
        head: HeadFactory,
        num_classes: int,
        output_stride: int = 8,
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        auxiliary: bool = True,
        dropout: float = 0.1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, str) and not callable(backbone):
            raise ConfigError(
                f"backbone must be the name of a timm network, or a group with a _target_, got '{backbone}'"
            )
        if num_classes < 2:
            raise ConfigError(f"num_classes must be at least 2, got {num_classes}")
        if in_channels < 1:
            raise ConfigError(f"in_channels must be at least 1, got {in_channels}")
        self.num_classes, self.in_channels = num_classes, in_channels
        self.frozen: Sequence[nn.Module] = ()  # what training leaves as it is: see `freeze`
        build: BackboneFactory = partial(Backbone, backbone) if isinstance(backbone, str) else backbone
        more = {} if in_channels == 3 else {"in_channels": in_channels}
        self.backbone = build(output_stride, options, pretrained, weights, **more)
        self.head = head(self.backbone.channels, self.backbone.strides)
        self.head_width = int(self.head.channels)  # type: ignore[arg-type]
        self.classifier = _classifier(self.head_width, num_classes, dropout)
        self.auxiliary: nn.Module | None = None
        if auxiliary:
            level = self.backbone.channels[-2]
            width = max(8, level // 4)
            self.auxiliary = nn.Sequential(
                conv_bn_relu(level, width, kernel=3), _classifier(width, num_classes, dropout)
            )

    def train(self, mode: bool = True) -> Segmenter:
        """Switch to training, but for what is frozen."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def channels(self) -> dict[str, int]:
        """Width of each feature map, by its name in `Outputs.features`."""
        widths = {f"stage{i + 1}": width for i, width in enumerate(self.backbone.channels)}
        return {**widths, "head": self.head_width}

    def forward(self, image: Tensor) -> Outputs:
        """(N, C, H, W) float, normalised -> logits (N, K, h, w) and the maps named in `channels`."""
        # Data are normalised in float32; networks may be of another precision, as trainer.precision says.
        maps = self.backbone(image.to(next(self.classifier.parameters()).dtype))
        head = self.head(maps)
        features = {f"stage{i + 1}": x for i, x in enumerate(maps)}
        auxiliary = self.auxiliary(maps[-2]) if self.training and self.auxiliary is not None else None
        return Outputs(self.classifier(head), {**features, "head": head}, auxiliary)


def _classifier(channels: int, num_classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))


def count_parameters(model: nn.Module) -> int:
    """Number of parameters that the network needs to predict: the auxiliary head is not counted."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("auxiliary."))
