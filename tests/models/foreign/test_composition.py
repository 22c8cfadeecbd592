"""CIRKD's and mmsegmentation's networks against plain compositions: timm's ResNet, and functions of the tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.foreign.network import ForeignNetwork
from tests.models.foreign.networks import cirkd, image, mmseg, randomise

State = Mapping[str, Tensor]
Build = Callable[..., ForeignNetwork]
SIZE = (97, 129)


def conv(x: Tensor, state: State, name: str, dilation: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    bias = state.get(f"{name}.bias")
    return F.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation, groups=groups)


def norm(x: Tensor, state: State, name: str) -> Tensor:
    tensors = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *tensors))


def trunk(state: State, prefix: str, stem: Mapping[str, str], depth: int) -> list[Tensor]:
    """Return the four maps of timm's ResNet with a deep stem, given the same tensors by its own names."""
    bottleneck = {18: False, 50: True}[depth]
    net = timm.create_model(
        f"resnet{depth}", features_only=True, output_stride=8, stem_type="deep", stem_width=8, channels=[8, 16, 32, 64]
    ).eval()
    assert bottleneck == ("layer1.0.conv3.weight" in net.state_dict())
    named = {}
    for name, value in state.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            old = next((s for s in stem if rest.startswith(f"{s}.")), None)
            named[rest if old is None else stem[old] + rest.removeprefix(old)] = value
    net.load_state_dict(named)
    return net(image(*SIZE))[1:]


STEM = ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")
CIRKD_STEM = dict(zip(("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"), STEM, strict=True))
MMSEG_STEM = dict(zip(("stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"), STEM, strict=True))


def wide(x: Tensor, like: Tensor, align: bool) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=align)


def cirkd_head(x: Tensor, state: State, head: str) -> Tensor:
    if head == "psp":
        parts = [x]
        for i, bins in enumerate((1, 2, 3, 6), start=1):
            pooled = F.adaptive_avg_pool2d(x, bins)
            pooled = norm(conv(pooled, state, f"head.psp.conv{i}.0"), state, f"head.psp.conv{i}.1")
            parts.append(wide(pooled, x, True))
        y = norm(conv(torch.cat(parts, 1), state, "head.block.0"), state, "head.block.1")
        return conv(y, state, "head.classifier")
    parts = [norm(conv(x, state, "head.aspp.b0.0"), state, "head.aspp.b0.1")]
    for i, rate in enumerate((12, 24, 36), start=1):
        name = f"head.aspp.b{i}.block"
        parts.append(norm(conv(x, state, f"{name}.0", rate), state, f"{name}.1"))
    mean = norm(conv(x.mean((2, 3), keepdim=True), state, "head.aspp.b4.gap.1"), state, "head.aspp.b4.gap.2")
    parts.append(wide(mean, x, True))
    y = norm(conv(torch.cat(parts, 1), state, "head.aspp.project.0"), state, "head.aspp.project.1")
    return conv(norm(conv(y, state, "head.block.0"), state, "head.block.1"), state, "head.block.4")


def module(x: Tensor, state: State, name: str, dilation: int = 1, groups: int = 1) -> Tensor:
    return norm(conv(x, state, f"{name}.conv", dilation, groups), state, f"{name}.bn")


def separable(x: Tensor, state: State, name: str, dilation: int = 1) -> Tensor:
    depthwise = module(x, state, f"{name}.depthwise_conv", dilation, x.shape[1])
    return module(depthwise, state, f"{name}.pointwise_conv")


def mmseg_head(maps: list[Tensor], state: State, head: str, align: bool) -> Tensor:
    x, name = maps[-1], "decode_head"
    if head == "psp":
        parts = [x]
        for i, bins in enumerate((1, 2, 3, 6)):
            parts.append(wide(module(F.adaptive_avg_pool2d(x, bins), state, f"{name}.psp_modules.{i}.1"), x, align))
        return conv(module(torch.cat(parts, 1), state, f"{name}.bottleneck"), state, f"{name}.conv_seg")
    pooled = module(x.mean((2, 3), keepdim=True), state, f"{name}.image_pool.1")
    parts = [wide(pooled, x, align), module(x, state, f"{name}.aspp_modules.0")]
    step = separable if head == "plus" else module
    parts += [step(x, state, f"{name}.aspp_modules.{i}", rate) for i, rate in ((1, 12), (2, 24), (3, 36))]
    y = step(torch.cat(parts, 1), state, f"{name}.bottleneck")
    if head == "plus":
        fine = module(maps[0], state, f"{name}.c1_bottleneck")
        y = torch.cat([wide(y, fine, align), fine], 1)
        for i in (0, 1):
            y = separable(y, state, f"{name}.sep_bottleneck.{i}")
    return conv(y, state, f"{name}.conv_seg")


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("head", ["aspp", "psp"])
@torch.no_grad()
def test_cirkd(head: str, depth: int) -> None:
    network = randomise(cirkd(head, depth=depth))
    state = network.state_dict()
    maps = trunk(state, "pretrained.", CIRKD_STEM, depth)
    outputs = network(image(*SIZE))
    torch.testing.assert_close(outputs.features["stage4"], maps[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.logits, cirkd_head(maps[-1], state, head), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("head", ["psp", "aspp", "plus"])
@torch.no_grad()
def test_mmseg(head: str, align: bool) -> None:
    network = randomise(mmseg(head, depth=50))
    network.get_submodule("decode_head").align_corners = align
    state = network.state_dict()
    maps = trunk(state, "backbone.", MMSEG_STEM, 50)
    outputs = network(image(*SIZE))
    torch.testing.assert_close(outputs.logits, mmseg_head(maps, state, head, align), atol=1e-4, rtol=1e-4)
    for i, expected in enumerate(maps):
        torch.testing.assert_close(outputs.features[f"stage{i + 1}"], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_plain_block_of_mmseg_dilates_its_first_convolution_alone() -> None:
    network = mmseg("psp", depth=18)
    found = {}
    for name, layer in network.get_submodule("backbone").named_modules():
        if re.fullmatch(r"layer[34]\.\d\.conv[12]", name):
            found[name] = layer.dilation[0]
    assert found == {
        **{"layer3.0.conv1": 1, "layer3.0.conv2": 1, "layer3.1.conv1": 2, "layer3.1.conv2": 1},
        **{"layer4.0.conv1": 2, "layer4.0.conv2": 1, "layer4.1.conv1": 4, "layer4.1.conv2": 1},
    }


@pytest.mark.parametrize("build", [cirkd, mmseg])
def test_features_are_named_as_our_own(build: Build) -> None:
    network = build("psp")
    assert network.channels == {"stage1": 8, "stage2": 16, "stage3": 32, "stage4": 64, "head": 16}
    found = network(image(64, 64)).features
    assert [tuple(x.shape[-2:]) for x in found.values()] == [(16, 16), (8, 8), (8, 8), (8, 8), (8, 8)]


@pytest.mark.parametrize("build", [cirkd, mmseg])
@torch.no_grad()
def test_all_batch_norms_fold(build: Build) -> None:
    network = randomise(build("aspp"))
    before = network(image(*SIZE))
    count = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    assert fold_batch_norms(network, image(*SIZE)) == count
    after = network(image(*SIZE))
    torch.testing.assert_close(after.logits, before.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.features["head"], before.features["head"], atol=1e-4, rtol=1e-4)
