"""Networks of segmentation_models.pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from idd_seg.errors import ConfigError, suggest
from idd_seg.models.foreign.extras import needed
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.network import ForeignNetwork

PACKAGE = "segmentation_models_pytorch"
MAPS = 4


class SMP(ForeignNetwork):
    """A network of segmentation_models.pytorch; its features are the encoder's last four maps and the decoder's.

    Its logits have the size of the picture: what scales them is a part of the network, and differs among architectures.

    Args:
        num_classes: None counts them in the file.
        input: the network's normalisation; sides that are no multiples of the encoder's stride are scaled up to one.
        architecture: e.g. `Unet`, `FPN`, `DeepLabV3Plus`, `UPerNet`.
        encoder: e.g. `resnet34`, `efficientnet-b0`, `tu-convnext_tiny`.
        options: further arguments of the architecture, as it was trained with.

    Raises:
        ConfigError: for what the package does not know, or if it is not installed.
    """

    auxiliary: ClassVar[Sequence[str]] = ("classification_head.",)
    classifiers: ClassVar[Sequence[str]] = ("segmentation_head.0.weight",)

    def __init__(
        self,
        num_classes: int | None,
        input: InputFormat,
        architecture: str,
        encoder: str,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, input)
        package = needed(PACKAGE, "smp")
        known = sorted(name for name in vars(package) if _is_architecture(package, name))
        if architecture not in known:
            raise ConfigError(
                f"teacher.model.architecture: smp has no '{architecture}'{suggest(architecture, known)} "
                f"It has {', '.join(known)}"
            )
        if "activation" in (options or {}) or "aux_params" in (options or {}):
            raise ConfigError("teacher.model.options: logits are wanted, without activation and aux_params")
        try:
            self.net: nn.Module = getattr(package, architecture)(
                encoder_name=encoder, encoder_weights=None, classes=self.num_classes, **(options or {})
            )
        except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            reason = str(error).strip("'\" ").splitlines()[0][:300]
            raise ConfigError(f"teacher.model: smp can't build {architecture} with '{encoder}': {reason}") from error
        stride = int(self.net.get_submodule("encoder").output_stride)
        self.input.multiple = max(self.input.multiple, stride)

    @property
    def inner(self) -> nn.Module:
        """The network as the package builds it."""
        return self.net

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        levels = self.net.get_submodule("encoder")(image)
        head = self.net.get_submodule("decoder")(levels)
        logits = self.net.get_submodule("segmentation_head")(head)
        last = list(levels)[-MAPS:]
        named = {f"stage{i + 1 + MAPS - len(last)}": x for i, x in enumerate(last) if x.shape[1] > 0}
        return logits, {**named, "head": head}


def _is_architecture(package: Any, name: str) -> bool:
    found = getattr(package, name)
    base = package.base.SegmentationModel
    return isinstance(found, type) and issubclass(found, base) and found is not base
