"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from idd_seg.errors import ConfigError
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.sizes import EVEN

BACKBONE, HEAD = "backbone", "head"
STAGES = ("stage1", "stage2", "stage3", "stage4")
PARTS = (BACKBONE, HEAD, *STAGES)


def freeze(network: Segmenter, parts: Sequence[str]) -> None:
    """Leave parts of a network as they are: no gradient, and BatchNorm with the averages that it has.

    Args:
        parts: of `backbone`, `head`, and `stage1` to `stage4`: a stage of the backbone with all that comes before it.

    Raises:
        ConfigError: for another word.
    """
    check_parts(parts)
    frozen = {id(parameter) for part in parts for parameter in _parameters(network, part)}
    for parameter in network.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    network.frozen = [module for module in network.modules() if _is_whole(module, frozen)]
    network.train(network.training)


def check_parts(parts: Sequence[str]) -> None:
    """Raise a ConfigError for a word that is no part of a network."""
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"freeze={part}: the parts of a network are {', '.join(PARTS)}")


def _parameters(network: Segmenter, part: str) -> list[nn.Parameter]:
    if part in (BACKBONE, HEAD):
        return list(network.get_submodule(part).parameters())
    return _up_to(network, STAGES.index(part))


def _up_to(network: Segmenter, stage: int) -> list[nn.Parameter]:
    """Return the backbone's parameters that the map of a stage follows from, whatever the network is built of."""
    parameters = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    training = network.training
    with torch.enable_grad():  # in evaluation mode, where a try leaves no trace in BatchNorm's averages
        like = parameters[0]
        picture = torch.zeros(1, network.in_channels, *EVEN, dtype=like.dtype, device=like.device)
        found = network.eval().backbone(picture)[stage].sum()
        reached = torch.autograd.grad(found, parameters, allow_unused=True)
    network.train(training)
    return [parameter for parameter, slope in zip(parameters, reached, strict=True) if slope is not None]


def _is_whole(module: nn.Module, frozen: set[int]) -> bool:
    """Tell whether a module has parameters of its own, and all of them are frozen."""
    own = list(module.parameters(recurse=False))
    return bool(own) and all(id(parameter) in frozen for parameter in own)
