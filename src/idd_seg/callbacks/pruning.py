"""Trials of a search that promise little are stopped early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from idd_seg.errors import ConfigError, Pruned

if TYPE_CHECKING:
    from optuna.trial import Trial


class Pruning(L.Callback):
    """Reports a metric at each validation, and stops the run where the search says so.

    Args:
        trial: the trial of the search that this run is.
        monitor: the metric, one number of the whole validation split.

    Raises:
        Pruned: on all ranks at once, from the validation that decided it.
        ConfigError: at the first validation, if it has no such metric.
    """

    def __init__(self, trial: Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # What is validated after training only completes the trial.
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ConfigError(f"callbacks.pruning.monitor={self.monitor} is not validated; there is {known}")
        # Ranks that decide by themselves could differ, and one would wait for the others for ever.
        stop = self._report(trainer) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(stop):
            raise Pruned(f"pruned at step {trainer.global_step}")

    def _report(self, trainer: L.Trainer) -> bool:
        """Tell the search how good the run is, and return whether it shall stop."""
        self.trial.report(float(trainer.callback_metrics[self.monitor]), trainer.global_step)
        at_the_end = 0 < trainer.max_steps <= trainer.global_step
        return not at_the_end and self.trial.should_prune()
