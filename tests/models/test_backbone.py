"""Backbones: what is refused, and where their weights come from."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.backbone import Backbone
from idd_seg.models.pretrained import hub, imagenet

DEEP = {"stem_type": "deep", "stem_width": 64}


def random_weights(name: str, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return timm.create_model(name, **options).state_dict()


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet81", "resnet"), ("mobilenetv2_10", "'mobilenetv2_"), ("resnet18.no_such_tag", "resnet18")],
)
def test_an_unknown_backbone_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{re.escape(name)}'.*{near}"):
        Backbone(name)


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"'qqqqqqqq' is not a timm model\.$"):
        Backbone("qqqqqqqq")


@pytest.mark.parametrize("stride", [0, 4, 12])
def test_an_unknown_stride_is_refused(stride: int) -> None:
    with pytest.raises(ConfigError, match=f"output_stride must be 8, 16 or 32, got {stride}"):
        Backbone("resnet18", output_stride=stride)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),  # three levels of one stride
        ("levit_128", {}),  # three levels
        ("hiera_tiny_224", {}),  # pictures of one size
        ("inception_v3", {}),  # none below 75 pixels
        ("resnet18", {"no_such_option": 1}),
        ("mobilenetv2_100", {"no_such_option": 1}),
        ("resnet18", {"layers": [1, 1]}),
        ("resnet18", {"act_layer": "no_such_layer"}),
        ("resnet18", {"output_stride": 16}),
        ("resnet18", {"out_indices": [1, 2]}),
    ],
)
def test_what_timm_cannot_build_is_refused_with_a_reason(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"'{name}'") as caught:
        Backbone(name, options=options)
    assert not str(caught.value).rstrip().endswith(":")


# Weights from the hub


def test_without_cache_and_hub_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(imagenet, "_cached_weights", lambda name: None)
    with pytest.raises(CheckpointError, match=r"'resnet18'.*student\.weights=PATH.*pretrained=false"):
        Backbone("resnet18", pretrained=True)


def test_weights_in_the_cache_need_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file(random_weights("resnet18"), tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "answers", lambda: pytest.fail("the hub was asked"))
    monkeypatch.setattr(imagenet, "_cached_weights", lambda name: str(tmp_path / "model.safetensors"))
    assert_loaded(Backbone("resnet18", pretrained=True).net, random_weights("resnet18"))


def test_a_network_without_published_weights_is_named() -> None:
    with pytest.raises(CheckpointError, match="no ImageNet weights for 'resnet50t'"):
        Backbone("resnet50t", pretrained=True)


def test_the_hub_is_asked_once_and_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.answers()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert not hub.answers()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not hub.answers()


# Weights from a file


def assert_loaded(net: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("options", [{}, DEEP], ids=["plain", "deep stem"])
def test_a_local_file_gives_its_own_tensors(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    weights, path = random_weights("resnet18", **options), tmp_path / f"weights of mine.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    assert_loaded(Backbone("resnet18", options=options, weights=str(path)).net, weights)


def test_a_local_file_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(random_weights("resnet18"), tmp_path / "weights.pth")
    assert_loaded(Backbone("resnet18", weights="~/weights.pth").net, random_weights("resnet18"))


def test_a_local_file_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answers", lambda: pytest.fail("the hub was asked"))
    torch.save(random_weights("resnet18"), tmp_path / "weights.pth")
    net = Backbone("resnet18", pretrained=True, weights=str(tmp_path / "weights.pth")).net
    assert_loaded(net, random_weights("resnet18"))


def without(part: str) -> dict[str, Tensor]:
    return {name: value for name, value in random_weights("resnet34").items() if part not in name}


FOREIGN: dict[str, Callable[[], dict[str, Any]]] = {
    "of unknown names": lambda: {"a.weight": torch.zeros(2)},
    "empty": dict,
    "of other widths": lambda: random_weights("resnet34", channels=[8, 16, 32, 64]),
    "of a shallower network": lambda: random_weights("resnet18"),
    "without a layer": lambda: without("layer4.2"),
    "without batch statistics": lambda: without("running"),
    "of this program": lambda: {
        "state_dict": {f"student.backbone.net.{k}": v for k, v in random_weights("resnet34").items()},
        "idd_seg": {"format": 1},
    },
}


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_that_leaves_layers_at_random_is_refused(tmp_path: Path, content: str) -> None:
    torch.save(FOREIGN[content](), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth|resnet34"):
        Backbone("resnet34", weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("unneeded", ["fc.", ".num_batches_tracked"])
def test_a_file_need_not_hold_what_features_do_not_need(tmp_path: Path, unneeded: str) -> None:
    weights = {name: value for name, value in random_weights("resnet18").items() if unneeded not in name}
    torch.save(weights, tmp_path / "weights.pth")
    net = Backbone("resnet18", weights=str(tmp_path / "weights.pth")).net
    assert_loaded(net, {**random_weights("resnet18"), **weights})


def test_weights_of_a_plain_stem_are_refused_by_a_deep_one(tmp_path: Path) -> None:
    torch.save(random_weights("resnet18"), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth|resnet18"):
        Backbone("resnet18", options=DEEP, weights=str(tmp_path / "weights.pth"))
