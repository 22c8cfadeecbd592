"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from idd_seg.errors import ConfigError
from idd_seg.models.freeze import freeze
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.mit import MixTransformer
from idd_seg.models.segmenter import Segmenter

Build = Callable[..., Segmenter]


def train(network: Segmenter) -> set[str]:
    """Take a step, and return what of the state has changed, parameters and averages."""
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    found = network(torch.randn(2, 3, 64, 64))
    (found.logits.square().mean() + found.auxiliary.square().mean()).backward()
    optimizer.step()
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize(
    ("parts", "still", "moving"),
    [
        (["backbone"], ("backbone.",), ("head.", "classifier.", "auxiliary.")),
        (["head"], ("head.",), ("backbone.net.conv1", "backbone.net.layer4", "classifier.")),
        (["stage2"], ("backbone.net.conv1", "backbone.net.layer1", "backbone.net.layer2"), ("backbone.net.layer3",)),
        (["stage1"], ("backbone.net.conv1", "backbone.net.layer1"), ("backbone.net.layer2",)),
        (["stage4", "head"], ("backbone.", "head."), ("classifier.",)),
    ],
)
def test_what_is_frozen_stays(
    parts: list[str], still: tuple[str, ...], moving: tuple[str, ...], tiny_segmenter: Build
) -> None:
    network = tiny_segmenter()
    freeze(network, parts)
    changed = train(network)
    assert not [name for name in changed if name.startswith(still)]
    for start in moving:
        assert any(name.startswith(start) for name in changed), start


def test_a_try_leaves_no_trace(tiny_segmenter: Build) -> None:
    network = tiny_segmenter()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    freeze(network, ["stage3"])
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_nothing_is_frozen_without_parts(tiny_segmenter: Build) -> None:
    network = tiny_segmenter()
    freeze(network, [])
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.eval()
    assert all(module.training for module in network.train().modules())


def test_a_backbone_of_another_kind_has_stages_too() -> None:
    build = partial(MixTransformer, name="mit_b0", widths=[8, 16, 24, 32], depths=[1, 1, 1, 1], heads=[1, 1, 1, 1])
    network = Segmenter(build, PSPHead, 5)
    freeze(network, ["stage1"])
    changed = train(network)
    backbone = {name for name, _ in network.backbone.named_parameters(prefix="backbone")}
    assert changed & backbone
    assert backbone - changed
    assert [name for name, p in network.named_parameters() if p.requires_grad and name not in changed] == []


def test_an_unknown_part_is_told(tiny_segmenter: Build) -> None:
    with pytest.raises(ConfigError, match="freeze=stage5: the parts of a network are backbone, head, stage1"):
        freeze(tiny_segmenter(), ["stage5"])
