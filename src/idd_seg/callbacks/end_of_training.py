"""The moment at which a training is over and its last step has been validated."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from idd_seg.distillation.module import Distiller


class EndOfTraining(L.Callback):
    """Calls `ended` once: at the end of the fit, or of the validation behind it where the fit did not end with one."""

    def __init__(self) -> None:
        self.waiting = False

    def ended(self, trainer: L.Trainer, module: Distiller) -> None:
        """Do what is to be done; on every rank, while networks are still on their device."""
        raise TypeError(f"{type(self).__name__} does not implement ended")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, Distiller):
            return
        self.waiting = trainer.global_step not in pl_module.validated
        if not self.waiting:
            self.ended(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.waiting and isinstance(pl_module, Distiller) and trainer.state.fn == TrainerFn.VALIDATING:
            self.waiting = False
            self.ended(trainer, pl_module)
