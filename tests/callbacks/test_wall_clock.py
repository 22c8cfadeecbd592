"""The time of a training that was stopped and went on."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from idd_seg.callbacks.wall_clock import Clock
from tests.callbacks.test_graceful_stop import Linear


def trainer(folder: Path, clock: Clock, steps: int) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        max_steps=steps,
        callbacks=[clock],
        accelerator="cpu",
        default_root_dir=folder,
        enable_checkpointing=False,
        **quiet,
    )


def test_the_parts_of_a_training_are_added_up(tmp_path: Path) -> None:
    batches = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)
    clock = Clock()
    clock.before = 1000.0
    first = trainer(tmp_path, clock, 2)
    first.fit(Linear(), batches)
    first.save_checkpoint(tmp_path / "first.ckpt")
    until_then = clock.seconds
    assert 1000 < until_then < 1100
    second = Clock()
    trainer(tmp_path, second, 4).fit(Linear(), batches, ckpt_path=tmp_path / "first.ckpt")
    assert 1000 < second.seconds < until_then + 100
    assert second.before <= until_then
