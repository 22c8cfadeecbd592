"""How long a training will take: said before its first step, at no cost to what it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from idd_seg.callbacks import duration
from idd_seg.callbacks.duration import Duration, as_in_use, spoken
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.kd import PixelWise
from tests.test_training import distiller, network, shapes, trainer


def trained(folder: Path, *callbacks: Duration, steps: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    module = distiller({"ce": CrossEntropy(), "kd": PixelWise()}, network(8), network(4))
    trainer(folder, steps=steps, callbacks=list(callbacks)).fit(module, datamodule=shapes())
    return dict(module.student.state_dict())


def test_nothing_changes_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "LEAST", 0.0)
    monkeypatch.setattr(duration, "LEAST_STEPS", 1)
    without, with_it = trained(tmp_path / "a"), trained(tmp_path / "b", Duration())
    for name, value in without.items():
        assert torch.equal(with_it[name], value), name


def test_it_says_steps_and_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duration, "LEAST", 0.0)
    monkeypatch.setattr(duration, "LEAST_STEPS", 1)
    # A forward pass of a second each, and loading that takes none: three of the student's and one of the teacher's.
    monkeypatch.setattr(duration, "timed", lambda call, device: 1.0)
    read = duration._loaded
    monkeypatch.setattr(duration, "_loaded", lambda *args: (read(*args)[0], 0.0))
    trained(tmp_path, Duration())
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("this training"))
    assert ": 3 steps of 4 s, " in line
    assert line.startswith("this training takes about ")
    assert "what its terms add" in line


@pytest.mark.parametrize("chosen", [{"compiled": True}, {}])
def test_short_or_compiled_trainings_are_not_timed(
    chosen: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "LEAST_STEPS", 1 if chosen else 20)
    monkeypatch.setattr(duration, "timed", lambda call, device: pytest.fail("timed"))
    trained(tmp_path, Duration(**chosen))


def test_each_part_gets_its_mode_back() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout()))
    net[0].eval()
    with as_in_use(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == [True, False, True, True]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45, "45 seconds"), (119, "119 seconds"), (150, "2.5 minutes"), (3000, "50 minutes"), (36000 * 5, "2.1 days")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
