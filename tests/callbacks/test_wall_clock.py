"""The time of a training that was stopped and went on."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from idd_seg.callbacks.wall_clock import Moment, WallClock
from tests.callbacks.test_graceful_stop import Linear


class Judged(Linear):
    """With a validation after each epoch."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        pass


def trainer(folder: Path, clock: WallClock, steps: int) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        max_steps=steps,
        check_val_every_n_epoch=None,
        val_check_interval=2,
        callbacks=[clock],
        accelerator="cpu",
        default_root_dir=folder,
        enable_checkpointing=False,
        **quiet,
    )


def test_the_parts_of_a_training_are_added_up(tmp_path: Path) -> None:
    batches = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)
    clock = WallClock()
    clock.before = Moment(1000.0, 500.0)
    first = trainer(tmp_path, clock, 2)
    first.fit(Linear(), batches)
    first.save_checkpoint(tmp_path / "first.ckpt")
    until_then = clock.now
    assert 1000 < until_then.seconds < 1100
    assert 500 < until_then.cpu_seconds < 600
    second = WallClock()
    trainer(tmp_path, second, 4).fit(Linear(), batches, ckpt_path=tmp_path / "first.ckpt")
    assert 1000 < second.now.seconds < until_then.seconds + 100
    assert 500 < second.now.cpu_seconds < until_then.cpu_seconds + 100
    assert second.before.seconds <= until_then.seconds


def test_each_validation_has_its_moment_also_of_the_parts_before(tmp_path: Path) -> None:
    batches = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)
    clock = WallClock()
    first = trainer(tmp_path, clock, 2)
    first.fit(Judged(), batches, batches)
    assert list(clock.validated) == [2]  # not the look before the training
    first.save_checkpoint(tmp_path / "first.ckpt")
    second = WallClock()
    again = trainer(tmp_path, second, 4)
    again.fit(Judged(), batches, batches, ckpt_path=tmp_path / "first.ckpt")
    assert list(second.validated) == [2, 4]
    assert second.validated[2] == clock.validated[2]
    assert second.validated[2].seconds < second.validated[4].seconds <= second.now.seconds
    assert second.validated[2].cpu_seconds < second.validated[4].cpu_seconds


def test_a_checkpoint_from_before_the_class_was_renamed_still_counts(tmp_path: Path) -> None:
    batches = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)
    first = trainer(tmp_path, WallClock(), 2)
    first.fit(Linear(), batches)
    first.save_checkpoint(tmp_path / "old.ckpt")
    content = torch.load(tmp_path / "old.ckpt", weights_only=True)
    assert set(content["callbacks"]) == {"Clock"}
    content["callbacks"] = {"Clock": {"seconds": 5000.0}}
    torch.save(content, tmp_path / "old.ckpt")
    again = WallClock()
    trainer(tmp_path, again, 4).fit(Linear(), batches, ckpt_path=tmp_path / "old.ckpt")
    assert 5000 < again.now.seconds < 5100
