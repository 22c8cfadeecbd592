"""Backbones that are not dilated ResNets: strides of their own, branches, other layouts, pictures of few sizes."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any

import pytest
import torch

from idd_seg.errors import ConfigError
from idd_seg.models import backbone
from idd_seg.models.backbone import Backbone
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.heads.upernet import UPerNetHead
from idd_seg.models.segmenter import HeadFactory, Segmenter
from idd_seg.models.sizes import Sizes

# By what is odd about them.
ODD: dict[str, dict[str, Any]] = {
    "rounds down": {"name": "convnext_atto"},
    "rounds down, of its own stride": {"name": "convnext_atto", "output_stride": 32},
    "has no dilated form": {"name": "pvt_v2_b0"},
    "keeps channels last": {"name": "mambaout_femto"},
    "takes multiples of 32": {"name": "swin_tiny_patch4_window7_224", "options": {"strict_img_size": False}},
    "has six levels, the last three of stride 8": {"name": "darknet17"},
}


@pytest.mark.parametrize("what", ODD)
def test_it_gives_four_maps_of_any_picture(what: str) -> None:
    network = Backbone(**ODD[what]).eval()
    for size in ((64, 96), (65, 97), (5, 40), (1, 1)):
        check_maps(network, size)


def check_maps(network: Backbone, size: tuple[int, int]) -> None:
    shown = network.sizes.fit(torch.randn(2, 3, *size))
    with torch.no_grad():
        maps = network(torch.randn(2, 3, *size))
    assert len(maps) == len(network.channels) == len(network.strides) == 4
    for map_, width, stride in zip(maps, network.channels, network.strides, strict=True):
        assert map_.shape[:2] == (2, width)
        for cells, side in zip(map_.shape[-2:], shown.shape[-2:], strict=True):
            assert cells in (math.floor(side / stride), math.ceil(side / stride))
            assert cells > 0
        assert map_.isfinite().all()


@pytest.mark.parametrize("name", ["pvt_v2_b0", "hrnet_w18_small", "densenet121"])
def test_without_a_dilated_form_the_stride_is_its_own_and_that_is_said_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    backbone.say_native.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [Backbone(name, output_stride=8).strides for _ in range(2)] == [[4, 8, 16, 32]] * 2
    assert caplog.messages == [f"backbone '{name}' has no dilated form: its stride is 32, not output_stride=8"]


@pytest.mark.parametrize(("name", "stride"), [("convnext_atto", 8), ("mobilenetv3_small_100", 16), ("darknet17", 8)])
def test_nothing_is_said_of_a_stride_that_is_had(name: str, stride: int, caplog: pytest.LogCaptureFixture) -> None:
    backbone.say_native.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert Backbone(name, output_stride=stride).strides[-1] == stride
    assert caplog.messages == []


@pytest.mark.parametrize("head", [PSPHead, partial(UPerNetHead, width=16)])
@pytest.mark.parametrize("what", ODD)
def test_every_trained_parameter_gets_a_gradient(what: str, head: HeadFactory) -> None:
    node = dict(ODD[what])
    network = Segmenter(node.pop("name"), head, 5, auxiliary=False, **node).train()
    assert_all_reached(network)


def test_branches_that_a_head_does_not_read_get_gradients_of_zero() -> None:
    """DistributedDataParallel would wait for them for ever."""
    network = Segmenter("hrnet_w18_small", PSPHead, 5, auxiliary=False).train()
    assert_all_reached(network)
    assert any(not p.grad.any() for p in network.backbone.parameters() if p.grad is not None)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, after = network.eval()(image).logits, network(image).logits
    assert torch.equal(before, after)


def assert_all_reached(network: Segmenter) -> None:
    network(torch.randn(2, 3, 64, 96)).logits.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("key", ["output_stride", "features_only", "pretrained"])
def test_an_option_that_has_a_place_of_its_own_is_sent_there(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{key}' is no option of its own; give student\.{key}"):
        Backbone("resnet18", options={key: 16})


def test_a_network_of_one_picture_size_is_refused_with_its_reason_and_a_way() -> None:
    with pytest.raises(ConfigError, match=r"does not take pictures of any size.*doesn't match model.*strict_img_size"):
        Backbone("swin_tiny_patch4_window7_224")


@pytest.mark.parametrize(
    ("sizes", "shown", "seen"),
    [
        (Sizes(), (1, 3), (1, 3)),
        (Sizes(least=32), (7, 33), (32, 33)),
        (Sizes(least=32), (32, 33), (32, 33)),
        (Sizes(32, 32), (33, 64), (64, 64)),
        (Sizes(32, 32), (1, 96), (32, 96)),
    ],
)
def test_pictures_are_scaled_up_to_the_next_size_that_fits(
    sizes: Sizes, shown: tuple[int, int], seen: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, *shown)
    found = sizes.fit(image)
    assert found.shape[-2:] == seen
    assert (found is image) == (shown == seen and sizes.multiple == 1)


def test_building_does_not_touch_the_random_numbers_of_what_comes_after() -> None:
    def after(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        before = Backbone("resnet18").net.conv1.weight
        assert before.requires_grad
        return torch.rand(3)

    assert torch.equal(after(0), after(0))
    torch.manual_seed(0)
    import timm

    timm.create_model("resnet18", features_only=True, output_stride=8)
    assert torch.equal(torch.rand(3), after(0))


def test_a_new_backbone_is_in_training_mode_and_its_statistics_are_untouched() -> None:
    network = Backbone("resnet18")
    assert all(module.training for module in network.modules())
    assert all(int(v) == 0 for name, v in network.state_dict().items() if name.endswith("num_batches_tracked"))
