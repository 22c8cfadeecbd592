"""Segmentation networks of torchvision: FCN, DeepLabV3, LR-ASPP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.errors import ConfigError, suggest
from idd_seg.models.foreign.extras import needed
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.network import ForeignNetwork

# Where torchvision's own names of maps stand among ours: `out` and `aux` of ResNets and MobileNetV3, `low` and `high`
# of LR-ASPP. The layers of a ResNet have their own numbers.
STAGES = {"low": "stage2", "aux": "stage3", "out": "stage4", "high": "stage4"}


class TorchVision(ForeignNetwork):
    """A network of `torchvision.models.segmentation`; its logits stay at the resolution of its features.

    Args:
        num_classes: None counts them in the file.
        input: the network's normalisation.
        name: e.g. `deeplabv3_resnet101`, `fcn_resnet50`, `lraspp_mobilenet_v3_large`.

    Raises:
        ConfigError: for an unknown name, or if torchvision is not installed.
    """

    auxiliary: ClassVar[Sequence[str]] = ("aux_classifier.",)
    classifiers: ClassVar[Sequence[str]] = (
        "classifier.4.weight",
        "classifier.low_classifier.weight",
    )

    def __init__(self, num_classes: int | None, input: InputFormat, name: str) -> None:
        super().__init__(num_classes, input)
        models = needed("torchvision", "torchvision").models
        known = models.list_models(module=models.segmentation)
        if name not in known:
            raise ConfigError(
                f"teacher.model.name: torchvision has no segmentation network '{name}'{suggest(name, known)} "
                f"It has {', '.join(known)}"
            )
        self.net: nn.Module = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=self.num_classes, **_without_auxiliary(name)
        )

    @property
    def inner(self) -> nn.Module:
        """The network as torchvision builds it."""
        return self.net

    def maps(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self._levels(image)
        classifier = self.net.get_submodule("classifier")
        if not isinstance(classifier, nn.Sequential):
            return self._light(found, classifier)
        *layers, last = classifier.children()
        head = found["stage4"]
        for layer in layers:
            head = layer(head)
        return last(head), {**found, "head": head}

    def _levels(self, image: Tensor) -> dict[str, Tensor]:
        """Run the trunk layer by layer, which gives all stages of a ResNet, where itself gives one."""
        trunk = self.net.get_submodule("backbone")
        returned: dict[str, str] = trunk.return_layers  # type: ignore[assignment]
        found, x = {}, image
        for name, layer in trunk.named_children():
            x = layer(x)
            if name.startswith("layer"):
                found[f"stage{name.removeprefix('layer')}"] = x
            elif name in returned:
                found[STAGES[returned[name]]] = x
        return found

    def _light(self, found: dict[str, Tensor], classifier: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        """LR-ASPP, whose logits are the sum of two classifiers'; `head` is the wider one's map."""
        low, high = found["stage2"], found["stage4"]
        gated = classifier.get_submodule("cbr")(high) * classifier.get_submodule("scale")(high)
        head = F.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        logits = classifier.get_submodule("low_classifier")(low) + classifier.get_submodule("high_classifier")(head)
        return logits, {**found, "head": head}


def _without_auxiliary(name: str) -> dict[str, bool]:
    """LR-ASPP has no auxiliary head to leave out, and takes no such option."""
    return {} if name.startswith("lraspp") else {"aux_loss": False}
