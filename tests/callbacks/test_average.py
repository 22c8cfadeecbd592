"""The moving average of the student: by hand, in validation and checkpoints, and to the bit after a stop."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import lightning as L
import pytest
import torch

from idd_seg.callbacks.average import KEY, Average
from idd_seg.checkpoints.reader import STUDENT
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from tests.helpers import TINY, run
from tests.test_resume import stopped
from tests.test_training import distiller, shapes, trainer

OPTIONS = (
    *TINY[:5],
    *("data.train_length=10", "trainer.log_every_n_steps=2", "loss=ce", "teacher=none", "trainer.max_steps=12"),
    *("trainer.val_check_interval=3", "deterministic=true", "callbacks=average", "callbacks.average.decay=0.8"),
    *("callbacks.last.every_n_steps=2", "trainer.accumulate_grad_batches=2"),
)


class Watch(L.Callback):
    """Notes the student's weights after each batch, before the average moves, and in each validation."""

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.shown: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.trained.append(pl_module.student.classifier[1].weight.detach().clone())

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.shown.append(pl_module.student.classifier[1].weight.detach().clone())


def test_the_average_by_hand_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    module, watch, average = distiller({"ce": CrossEntropy()}, None), Watch(), Average(0.5)
    first = module.student.classifier[1].weight.detach().clone()
    fit = trainer(tmp_path, callbacks=[watch, average], val_check_interval=2, check_val_every_n_epoch=None)
    fit.fit(module, datamodule=shapes())
    expected = first
    for n, weight in enumerate(watch.trained, 1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight
        if n == 2:
            torch.testing.assert_close(watch.shown[0], expected)
    assert not torch.equal(watch.trained[1], watch.shown[0])
    assert len(watch.trained) == 4
    torch.testing.assert_close(module.student.classifier[1].weight.detach(), expected)
    fit.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    torch.testing.assert_close(content["state_dict"][f"{STUDENT}classifier.1.weight"], expected)
    assert torch.equal(content[KEY]["trained"]["classifier.1.weight"], watch.trained[-1])


@pytest.mark.parametrize("decay", [0, 1, -0.5, True])
def test_other_decays_are_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.average\.decay"):
        Average(decay)


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("train/images_per_s", "train/data_wait")} for row in rows]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path: Path) -> None:
    assert run("train", *OPTIONS, "hydra.run.dir=whole", cwd=tmp_path).returncode == 0
    words = (*OPTIONS, "hydra.run.dir=part", "resume=auto")
    assert stopped(tmp_path, words, signal.SIGKILL, rows=2) == -signal.SIGKILL
    again = run("train", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    states = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "part")]
    for key, value in states[0]["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1]["state_dict"][key]), key
    for key, value in states[0][KEY]["trained"].items():
        assert torch.equal(value, states[1][KEY]["trained"][key]), key
    assert log_of(tmp_path / "part") == log_of(tmp_path / "whole")
