"""Networks of mmsegmentation, https://github.com/open-mmlab/mmsegmentation: ResNetV1c with one of its decode heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.mmseg_heads import DecodeHead
from idd_seg.models.foreign.network import ForeignNetwork
from idd_seg.models.foreign.resnet import ResNet, check_width, stages, stem_convolutions


class ResNetV1c(ResNet):
    """The trunk; its stem is one sequence, `stem.0` to `stem.8`."""

    def __init__(self, depth: int, base: int) -> None:
        super().__init__(depth, base, dilate_second=False)
        layers = [layer for pair in stem_convolutions(base) for layer in (*pair, nn.ReLU(inplace=True))]
        self.stem = nn.Sequential(*layers)

    def stem_of(self, image: Tensor) -> Tensor:
        return self.stem(image)  # type: ignore[no-any-return]


class MMSeg(ForeignNetwork):
    """A trunk, named `backbone`, and a `decode_head`; contracted dilations (1, 1, 2, 4), stride 8.

    Args:
        num_classes: None counts them in the file.
        input: the network's normalisation.
        head: builds the decode head from the trunk's widths.
        depth: of the ResNet: 18, 50 or 101.
        width: of the head's map: 512 at depths 50 and 101, 128 at 18.
        base: see `ResNet`.

    Raises:
        ConfigError: for an unknown depth, or a width out of range.
    """

    auxiliary: ClassVar[Sequence[str]] = ("auxiliary_head.",)
    classifiers: ClassVar[Sequence[str]] = ("decode_head.conv_seg.weight",)

    def __init__(
        self,
        num_classes: int | None,
        input: InputFormat,
        head: Callable[..., DecodeHead],
        depth: int = 101,
        width: int = 512,
        base: int = 64,
    ) -> None:
        super().__init__(num_classes, input)
        check_width("width", width)
        self.backbone = ResNetV1c(depth, base)
        self.decode_head = head(channels=self.backbone.widths, width=width, num_classes=self.num_classes)

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.backbone(image)
        logits, head = self.decode_head(found)
        return logits, {**stages(found), "head": head}
