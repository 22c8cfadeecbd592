"""The Mix Transformer: against another implementation, and where its weights come from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models import backbone
from idd_seg.models.mit import MixTransformer
from idd_seg.models.pretrained import hub

SMALL: dict[str, Any] = {"widths": [8, 16, 20, 24], "depths": [1, 2, 1, 1], "heads": [1, 2, 5, 3]}


def small(**changes: Any) -> MixTransformer:
    torch.manual_seed(0)
    return MixTransformer(**{**SMALL, **changes})


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (32, 200)])
def test_it_computes_what_transformers_computes_of_the_same_file(tmp_path: Path, size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    names = ("hidden_sizes", "depths", "num_attention_heads")
    torch.manual_seed(1)
    config = transformers.SegformerConfig(**dict(zip(names, SMALL.values(), strict=True)))
    theirs = transformers.SegformerModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = small(weights=str(tmp_path)).eval()
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = theirs(image, output_hidden_states=True).hidden_states
        for found, map_ in zip(ours(image), expected, strict=True):
            torch.testing.assert_close(found, map_, atol=1e-5, rtol=1e-5)


def test_b0_has_the_number_of_parameters_of_its_paper() -> None:
    """3.3 M: the 3.8 M of SegFormer-B0 without its head."""
    assert round(sum(p.numel() for p in MixTransformer().parameters()) / 1e6, 1) == 3.3


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (31, 33)])
def test_small_pictures_are_scaled_up(size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = small().eval()(torch.randn(1, 3, *size))
    least = [max(32, side) for side in size]
    assert [m.shape[-2:] for m in maps] == [tuple(-(-side // s) for side in least) for s in (4, 8, 16, 32)]
    assert all(m.isfinite().all() for m in maps)


def test_every_parameter_is_reached_from_the_last_level() -> None:
    network = small(drop_path=0.0).train()
    network(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_another_stride_is_not_had_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    backbone.say_native.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [small(output_stride=8).strides for _ in range(2)] == [[4, 8, 16, 32]] * 2
    assert caplog.messages == ["backbone 'mit_b0' has no dilated form: its stride is 32, not output_stride=8"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"act_layer": "relu"}}, "takes no options"),
        ({"heads": [3, 1, 1, 1]}, "width 8 can't be shared among 3 heads"),
        ({"widths": [8, 16]}, "has 4 levels"),
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, got 4"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small(**changes)


@pytest.mark.parametrize("prefix", ["", "segformer."])
def test_a_file_gives_its_own_tensors_and_its_classifier_is_passed_over(tmp_path: Path, prefix: str) -> None:
    weights = {f"{prefix}{k}": torch.randn_like(v) for k, v in small().state_dict().items()}
    save_file({**weights, "classifier.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    found = small(weights=str(tmp_path / "a.safetensors")).state_dict()
    assert all(torch.equal(value, weights[f"{prefix}{name}"]) for name, value in found.items())


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_a_file_of_another_network_is_refused(tmp_path: Path, fault: str) -> None:
    weights, name = small().state_dict(), "encoder.layer_norm.3.weight"
    if fault == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(3)
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth' does not fit 'mit_b0': 1 .* {name}"):
        small(weights=str(tmp_path / "a.pth"))


def test_published_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(small(widths=[8, 16, 20, 24]).state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []

    def cached(repository: str) -> str:
        asked.append(repository)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(hub, "cached", cached)
    monkeypatch.setattr(hub, "answers", lambda: pytest.fail("the hub was asked"))
    torch.manual_seed(5)
    network = MixTransformer(**SMALL, pretrained=True, hub_id="someone/some-weights")
    held = load_file(tmp_path / "model.safetensors")
    assert asked == ["someone/some-weights"]
    assert all(torch.equal(value, held[name]) for name, value in network.state_dict().items())


def test_without_cache_and_hub_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repository: None)
    monkeypatch.setattr(hub, "answers", lambda: False)
    with pytest.raises(CheckpointError, match=r"'mit_b0'.*student\.weights=PATH.*pretrained=false"):
        small(pretrained=True)
