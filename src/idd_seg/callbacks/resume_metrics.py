"""Lets the metrics file of a run go on where its checkpoint stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L

from idd_seg.loggers.metrics_csv import MetricsFile

ROW = "unlogged_row"  # of a checkpoint


def unlogged_row(trainer: L.Trainer) -> dict[str, float] | None:
    """Return what Lightning will log of the step that has just been made; None if it logs nothing of it.

    It does so behind `on_train_batch_end`. A run that is killed in between, and resumes from a checkpoint of that hook,
    makes the step no more: the checkpoint holds its row.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if not every or trainer.global_step % every:
        return None
    return {name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("train/")}


class ResumeMetrics(L.Callback):
    """Drops the rows of `metrics.csv` that a stopped run wrote behind the checkpoint from which it resumes.

    The row of the checkpoint's own step is added where the run was killed before it was logged.
    """

    def __init__(self) -> None:
        self.row: Mapping[str, float] | None = None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.row = checkpoint.get(ROW)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.go_on(trainer.global_step, self.row)
        self.row = None
