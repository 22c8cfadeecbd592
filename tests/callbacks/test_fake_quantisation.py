"""`quantize=int8`: what is rounded, to which values, and what a checkpoint holds of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from idd_seg import train
from idd_seg.callbacks.fake_quantisation import FakeQuantisation
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.errors import ConfigError
from idd_seg.models.rounded_layers import RoundedLayers, rounded_input, rounded_weight
from tests.commands import call


def test_an_input_has_256_values_and_zero_is_one_of_them() -> None:
    x = torch.linspace(-1, 3, 1001)
    found = rounded_input(x, torch.tensor(-1.0), torch.tensor(3.0))
    step = 4 / 255
    assert len(found.unique()) == 256
    assert (found == 0).any()
    assert (found - x).abs().max() <= step / 2 + 1e-3
    assert rounded_input(torch.zeros(3), torch.tensor(-1.0), torch.tensor(3.0)).tolist() == [0, 0, 0]


def test_values_beyond_the_range_are_cut_and_teach_nothing() -> None:
    x = torch.tensor([-9.0, 0.5, 9.0], requires_grad=True)
    found = rounded_input(x, torch.tensor(-1.0), torch.tensor(3.0))
    assert found.tolist() == pytest.approx([-1, 0.5, 3], abs=4 / 255)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 0]


def test_weights_have_a_range_for_each_output_channel() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([1e-3, 1, 10, 0]).view(-1, 1, 1, 1)
    found = rounded_weight(weight)
    for ours, theirs in zip(found, weight, strict=True):
        scale = theirs.abs().max() / 63
        assert (ours - theirs).abs().max() <= scale / 2 + 1e-9
        assert torch.allclose(ours, (theirs / scale.clamp(min=1e-12)).round() * scale, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_layers_compute_with_what_is_rounded(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(kind(3, 4, 3), nn.ReLU(), kind(4, 2, 1))
    x = torch.randn(2, 3, 8, 8)
    plain = network(x)
    rounded = RoundedLayers(network, momentum=0.5)
    with rounded:
        found = network(x)
    first, second = network[0], network[2]
    low, high = x.min(), x.max()
    assert rounded.ranges["0.weight"].tolist() == pytest.approx([float(low), float(high)])
    between = F.conv2d(_padded(kind, rounded_input(x, low, high)), rounded_weight(first.weight), first.bias).relu()
    expected = F.conv2d(
        rounded_input(between, between.new_zeros(()), between.detach().max()),
        rounded_weight(second.weight),
        second.bias,
    )
    torch.testing.assert_close(found, expected)
    assert 0 < (found - plain).abs().max() < 0.1 * plain.abs().max()
    torch.testing.assert_close(network(x), plain)  # outside of it nothing is rounded


def _padded(kind: type[nn.Conv2d], x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, [1, 1, 1, 1]) if kind is Conv2dSame else x


def test_ranges_follow_in_training_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    rounded = RoundedLayers(network, momentum=0.25)
    for scale in (1.0, 3.0):
        with rounded:
            network(torch.tensor([-1.0, 2.0]).view(1, 1, 1, 2) * scale)
        rounded.follow()
    assert rounded.ranges["0.weight"].tolist() == pytest.approx([-1.5, 3.0])  # a quarter of the way from 1 to 3
    network.eval()
    with rounded:
        network(torch.full((1, 1, 1, 2), 100.0))
    rounded.follow()
    assert rounded.ranges["0.weight"].tolist() == pytest.approx([-1.5, 3.0])


def test_gradients_reach_weights_and_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 1))
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    with RoundedLayers(network, 0.1):
        network(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("momentum", [0.0, 1.5, -1.0])
def test_momentum_is_a_share(momentum: float) -> None:
    with pytest.raises(ConfigError, match=r"quantize\.momentum must be above 0"):
        FakeQuantisation(momentum)


QUICK = (
    *("data.size=[32,32]", "data.train_length=8", "data.val_length=4", "data.batch_size=4", "data.num_workers=0"),
    *("loss=ce", "student=small", "trainer.val_check_interval=2"),
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["quantize=int8"], "quantize=int8 trains a finished student on; name it: init_from="),
        (["quantize=int4"], "did you mean"),
    ],
)
def test_a_mistake_is_one_message(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert call(train, *QUICK, *options, folder=tmp_path, patch=monkeypatch) == 1
    assert message in capfd.readouterr().err


def test_the_ranges_go_on() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    module: Any = SimpleNamespace(student=network, device=torch.device("cpu"))
    trainer: Any = None
    before, after = FakeQuantisation(), FakeQuantisation()
    before.on_fit_start(trainer, module)
    network(torch.tensor([-2.0, 2.0]).view(1, 1, 1, 2))
    before.on_train_batch_end(trainer)
    state = before.state_dict()
    before.teardown(trainer, module, "fit")
    after.load_state_dict(state)
    after.on_fit_start(trainer, module)
    assert after.rounded is not None
    assert after.rounded.ranges["0.weight"].tolist() == [-2, 2]
    network.eval()
    image = torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2)
    cut = network(image)
    after.teardown(trainer, module, "fit")
    assert cut.abs().max() < network(image).abs().max()
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


def test_a_student_trains_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: str, *options: str) -> Path:
        words = [*QUICK, f"hydra.run.dir={folder}", *options]
        assert call(train, *words, folder=tmp_path, patch=monkeypatch) == 0
        return tmp_path / folder / "checkpoints" / "last.ckpt"

    first = run("first", "trainer.max_steps=2")
    rounded = ["quantize=int8", f"init_from={first}", "deterministic=true"]
    whole = run("whole", *rounded, "trainer.max_steps=6")
    assert read_checkpoint(whole).weights.keys() == read_checkpoint(first).weights.keys()
    kept = torch.load(whole, weights_only=True)["callbacks"]
    ranges = next(state for name, state in kept.items() if name.startswith("FakeQuantisation"))["ranges"]
    assert len(ranges) > 5
    assert all(low <= 0 <= high and low < high for low, high in ranges.values())
    plain = run("plain", *rounded[1:], "trainer.max_steps=6")
    ours, theirs = (read_checkpoint(path).weights for path in (whole, plain))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_a_network_of_another_type_stays_of_it(kind: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).to(kind)
    with RoundedLayers(network, 0.1):
        found = network(torch.randn(2, 3, 8, 8).to(kind))
    assert found.dtype is kind
    found.sum().backward()
    assert network[0].weight.grad is not None
    assert network[0].weight.grad.dtype is kind
