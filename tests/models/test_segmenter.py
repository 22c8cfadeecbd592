"""Networks of every head and several backbones: shapes, names, widths, and what only training has."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from idd_seg.errors import ConfigError
from idd_seg.models.backbone import Backbone
from idd_seg.models.heads.aspp import ASPPHead
from idd_seg.models.heads.deeplabv3plus import DeepLabV3PlusHead
from idd_seg.models.heads.fcn import FCNHead
from idd_seg.models.heads.lraspp import LRASPPHead
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.heads.segformer import SegFormerHead
from idd_seg.models.heads.upernet import UPerNetHead
from idd_seg.models.segmenter import Segmenter, count_parameters
from tests.conftest import TINY

HEADS: dict[str, Callable[..., nn.Module]] = {
    "psp": PSPHead,
    "aspp": partial(ASPPHead, width=24),
    "deeplabv3plus": partial(DeepLabV3PlusHead, width=24, low_width=6),
    "fcn": FCNHead,
    "lraspp": partial(LRASPPHead, width=24),
    "segformer": partial(SegFormerHead, width=24),
    "upernet": partial(UPerNetHead, width=24),
}
# Levels whose grid the head's map has, where it is not the last.
GRIDS = {"deeplabv3plus": 0, "lraspp": 1, "segformer": 0, "upernet": 0}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet 8": {"backbone": "resnet18", "options": TINY},
    "resnet 16": {"backbone": "resnet18", "options": TINY, "output_stride": 16},
    "mobilenet 8": {"backbone": "mobilenetv2_100"},
    "mobilenet 16": {"backbone": "mobilenetv2_100", "output_stride": 16},
}
SIZES = [(64, 64), (65, 97), (33, 120)]


def build(head: str, backbone: str, **changes: Any) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(head=HEADS[head], num_classes=7, **{**BACKBONES[backbone], **changes})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_have_the_names_widths_and_strides_that_are_announced(head: str, backbone: str) -> None:
    network = build(head, backbone).eval()
    assert network.backbone.strides[-1] == BACKBONES[backbone].get("output_stride", 8)
    stride = network.backbone.strides[GRIDS.get(head, -1)]
    assert list(network.channels) == ["stage1", "stage2", "stage3", "stage4", "head"]
    strides = dict(zip(network.channels, [*network.backbone.strides, stride], strict=True))
    for height, width in SIZES:
        with torch.no_grad():
            found = network(torch.randn(2, 3, height, width))
        assert found.logits.shape == (2, 7, math.ceil(height / stride), math.ceil(width / stride))
        assert found.auxiliary is None
        assert list(found.features) == list(network.channels)
        for name, map_ in found.features.items():
            size = (math.ceil(height / strides[name]), math.ceil(width / strides[name]))
            assert map_.shape == (2, network.channels[name], *size), name
        assert found.logits.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet 8", "mobilenet 16"])
def test_training_has_auxiliary_logits_and_reaches_every_parameter(head: str, backbone: str) -> None:
    network = build(head, backbone).train()
    found = network(torch.randn(2, 3, 65, 97))
    third = found.features["stage3"]
    assert found.auxiliary is not None
    assert found.auxiliary.shape == (2, 7, *third.shape[-2:])
    assert network.head_width == found.features["head"].shape[1]
    (found.logits.square().mean() + found.auxiliary.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_without_auxiliary_head_there_is_none_in_training(tiny_segmenter: Callable[..., Segmenter]) -> None:
    network = tiny_segmenter(auxiliary=False)
    assert network.train()(torch.randn(2, 3, 64, 64)).auxiliary is None
    assert not [name for name in network.state_dict() if name.startswith("auxiliary")]


def test_the_auxiliary_head_is_no_part_of_the_number_of_parameters(tiny_segmenter: Callable[..., Segmenter]) -> None:
    bare, full = tiny_segmenter(auxiliary=False), tiny_segmenter()
    assert count_parameters(full) == count_parameters(bare) == sum(p.numel() for p in bare.parameters())
    assert sum(p.numel() for p in full.parameters()) > count_parameters(full)


@pytest.mark.parametrize("head", HEADS)
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(head: str) -> None:
    network, images = build(head, "resnet 8").eval(), torch.randn(3, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).logits[1:2], network(images[1:2]).logits)


def test_dropout_acts_in_training_alone(tiny_segmenter: Callable[..., Segmenter]) -> None:
    network, image = tiny_segmenter(dropout=0.5), torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert not torch.equal(network.train()(image).logits, network(image).logits)
        assert torch.equal(network.eval()(image).logits, network(image).logits)


@pytest.mark.parametrize(("stem_width", "widths"), [(64, [64, 64, 128]), (8, [8, 8, 16])])
def test_the_deep_stem_is_three_convolutions(stem_width: int, widths: list[int]) -> None:
    net = Backbone("resnet18", options={"stem_type": "deep", "stem_width": stem_width}).net
    stem = [m for name, m in net.named_modules() if name.startswith("conv1") and isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in stem] == widths
    assert [conv.kernel_size for conv in stem] == [(3, 3)] * 3
    assert [conv.stride for conv in stem] == [(2, 2), (1, 1), (1, 1)]


def test_options_set_the_widths(tiny_segmenter: Callable[..., Segmenter]) -> None:
    assert list(tiny_segmenter().channels.values()) == [8, 16, 32, 64, 16]
    assert build("aspp", "resnet 8").channels["head"] == 24


@pytest.mark.parametrize(("stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18])])
def test_the_rates_of_aspp_follow_the_stride(stride: int, rates: list[int]) -> None:
    head = ASPPHead([8, 8, 8, 8], [4, 8, stride, stride], width=4)
    found = [m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d) and m.dilation != (1, 1)]
    assert found == rates


def test_pyramid_pooling_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    head = PSPHead([4, 4, 4, 8], [4, 8, 8, 8], width=64).eval()
    maps = torch.randn(1, 8, 16, 16, requires_grad=True)
    head([maps])[0, :, 0, 0].sum().backward()
    assert maps.grad is not None
    assert maps.grad[0, :, -1, -1].abs().sum() > 0


@pytest.mark.parametrize("num_classes", [0, 1])
def test_fewer_than_two_classes_are_refused(tiny_segmenter: Callable[..., Segmenter], num_classes: int) -> None:
    with pytest.raises(ConfigError, match=f"num_classes must be at least 2, got {num_classes}"):
        tiny_segmenter(num_classes=num_classes)
