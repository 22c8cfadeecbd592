"""Lets the metrics file of a run go on where its checkpoint stands."""

from __future__ import annotations

import lightning as L

from idd_seg.loggers.metrics_csv import MetricsFile


class ResumeMetrics(L.Callback):
    """Drops the rows of `metrics.csv` that a stopped run wrote behind the checkpoint from which it resumes."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.go_on(trainer.global_step)
