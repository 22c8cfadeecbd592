"""Trainings that a program asks for: `idd_seg.train` and `idd_seg.distil`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from lightning import LightningDataModule
from torch import Tensor, nn

import idd_seg
from idd_seg.callbacks.graceful_stop import SIGNALS
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.groups import config_dir
from idd_seg.errors import CheckpointError, ConfigError, DataError, RunFolderError
from tests.shipping import save_run

TINY: dict[str, Any] = {
    "data.size": [32, 32],
    "data.train_length": 16,
    "data.val_length": 4,
    "data.batch_size": 4,
    "trainer": {"max_steps": 2, "log_every_n_steps": 1},
}


class Net(nn.Module):
    def __init__(self, classes: int = 11) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, classes, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"out": self.layers(image)}


def test_the_module_of_the_command_is_called_whoever_has_imported_what() -> None:
    code = (
        "import sys, idd_seg; before = 'idd_seg.train' in sys.modules; first = idd_seg.train; import idd_seg.train; "
        "from idd_seg import train; from idd_seg.train import main; "
        "print(before, first is idd_seg.train is train, callable(train), train.main is main, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "True", "False"]


def test_a_call_trains_as_the_command_does_and_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.2"):  # the program is one of Hydra itself
        HydraConfig.instance().set_config(hydra.compose("train", ["data=voc"], return_hydra_config=True))
        before = _state()
        run = idd_seg.train("data=shapes", loss="ce", teacher="none", run_dir=tmp_path / "a b", **TINY)
        assert _state() == before
        assert HydraConfig.get().runtime.choices.data == "voc"
    HydraConfig.instance().cfg = None
    assert run.folder == tmp_path / "a b"
    assert run.metrics == json.loads((run.folder / "metrics.json").read_text())
    assert run.miou == run.metrics["best"]["miou"]
    assert run.checkpoint == run.folder / "checkpoints" / "best.ckpt"
    assert run.model.predict(np.zeros((8, 9, 3), np.uint8)).shape == (8, 9)
    assert run.network is None
    command = json.loads((run.folder / "run.json").read_text())["command"]
    assert command[:4] == ["train.py", "data=shapes", "loss=ce", "teacher=none"]
    with pytest.raises(RunFolderError, match="holds a run already"):
        idd_seg.train("data=shapes", loss="ce", teacher="none", run_dir=run.folder, **TINY)
    again = idd_seg.train("data=shapes", loss="ce", teacher="none", run_dir=run.folder, resume="auto", **TINY)
    assert again.metrics == run.metrics


def _state() -> tuple[Any, ...]:
    """Return what a training must not change in the program around it."""
    random_numbers = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    hydra_state = (GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().version_base)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    products = (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled())
    return random_numbers, hydra_state, handlers, products, dict(os.environ), Path.cwd(), list(sys.argv)


def test_modules_are_distilled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = Net().train(), Net()
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    run = idd_seg.distil(teacher, student, "shapes", {"ce": 1, "kd": 0.5}, run_dir=tmp_path / "run", **TINY)
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert run.network is student
    saved = read_checkpoint(run.checkpoint)
    assert all(torch.equal(v, saved.weights[f"student.network.{k}"]) for k, v in student.state_dict().items())
    assert not torch.equal(student.layers[0].weight, Net().layers[0].weight)
    source = run.metrics["teacher"]
    assert source["path"].endswith(".Net")
    assert len(source["sha256"]) == 64
    with pytest.raises(ConfigError, match="take `network`"):
        _ = run.model
    with pytest.raises(CheckpointError, match=r"given by a program: .*Net', which is no network of this program"):
        idd_seg.load(run.checkpoint)
    shown = json.loads((run.folder / "exhibits" / "exhibits.json").read_text())
    assert shown["class_distances"] == {"student": None, "teacher": None}
    # Another teacher of the same class is another run.
    with pytest.raises(CheckpointError, match="is another one"):
        idd_seg.distil(
            Net(), Net(), "shapes", {"ce": 1, "kd": 0.5}, run_dir=_unfinished(run.folder), resume="auto", **TINY
        )


def _unfinished(folder: Path) -> Path:
    (folder / "metrics.json").unlink()
    return folder


WRONG_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "a name": (("data=shpes",), {}, "did you mean 'shapes'"),
    "a key": ((), {"loss.kd_weigth": 1}, "did you mean 'loss.kd_weight'"),
    "a type": ((), {"trainer": {"max_steps": "many"}}, "trainer.max_steps must be a whole number"),
    "an object": ((), {"optimizer": object()}, "optimizer: a value is a number, a text"),
    "a flag": (("-m",), {}, "sweeps and flags are the command line's"),
    "no option": (("shapes",), {}, "'shapes' is no option"),
    "twice": ((), {"epochs": 1, "trainer": {"max_steps": 2}}, "epochs and trainer.max_steps both"),
    "a teacher": ((), {"teacher": "none"}, "needs a teacher"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_a_wrong_option_is_an_error_of_this_program(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, options, message = WRONG_OPTIONS[case]
    with pytest.raises(ConfigError) as raised:
        idd_seg.train(*texts, run_dir=tmp_path / "run", **options)
    assert message in str(raised.value)
    assert capsys.readouterr().err == ""


class Wrong(nn.Module):
    def forward(self, image: Tensor) -> Any:
        return [image]


CALLS: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "other classes": ((Net(5), "small", "shapes"), ConfigError, "of 11 classes they are (N, 11, h, w)"),
    "no logits": ((Wrong(), "small", "shapes"), ConfigError, "the teacher gives a list"),
    "a module that fails": ((nn.Linear(2, 2), "small", "shapes"), ConfigError, "(Linear) fails with a picture"),
    "no feature maps": ((Net(), "small", "shapes", ["ce", "idd"]), ConfigError, "unknown tap 'head'"),
    "no term": ((Net(), "small", "shapes", ["cee"]), ConfigError, "there is no loss=cee"),
    "no student": ((Net(), "smal", "shapes"), ConfigError, "did you mean 'small'"),
    "a number": ((3, "small", "shapes"), ConfigError, "teacher is a name, a checkpoint's path or a torch module"),
    "no file": (("nowhere.ckpt", "small", "shapes"), CheckpointError, "nowhere.ckpt"),
    "no folder": ((Net(), "small", "nowhere"), DataError, "there is no folder 'nowhere'"),
    "another data module": ((Net(), "small", LightningDataModule()), DataError, "derive from idd_seg.data.pipeline"),
    "an option of a module": ((Net(), Net(), "shapes", "ce", "freeze=[backbone]"), ConfigError, "have been built"),
    "how a teacher is trained": (
        (Net(), Net(), "shapes", "ce", "teacher_optimizer=sgd"),
        ConfigError,
        "have been built",
    ),
    "a teacher's": ((Net(), "small", "shapes", "ce", "teacher.model=null"), ConfigError, "have been built"),
    "processes": ((Net(), "small", "shapes", "kd", "trainer.devices=2"), ConfigError, "can't be handed to others"),
}


@pytest.mark.parametrize("case", CALLS)
def test_what_can_not_be_distilled_is_refused_before_anything_begins(case: str, tmp_path: Path) -> None:
    call, kind, message = CALLS[case]
    with pytest.raises(kind) as raised:
        idd_seg.distil(*call, run_dir=tmp_path / "run", **TINY)
    assert message in str(raised.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_file_is_a_teacher(tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path / "teacher")
    run = idd_seg.distil(checkpoint, "small", "shapes", "kd", run_dir=tmp_path / "run", **TINY)
    assert run.metrics["teacher"]["path"] == str(checkpoint)
    assert "teacher=checkpoint" in json.loads((run.folder / "run.json").read_text())["command"]


def test_a_process_of_torchrun_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29511")
    with pytest.raises(ConfigError, match="a process of torchrun or srun"):
        idd_seg.train("data=shapes", run_dir=tmp_path / "run", **TINY)
