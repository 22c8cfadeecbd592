"""A moving average of the student's weights over the steps: what is validated, kept and exported."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from idd_seg.checkpoints.reader import STUDENT
from idd_seg.distillation.module import Distiller
from idd_seg.errors import ConfigError

KEY = "idd_seg_average"


class Average(L.Callback):
    r"""Exponential moving average of the student's weights and of its BatchNorm statistics.

    .. math:: \bar w_n = \beta_n \bar w_{n-1} + (1 - \beta_n) w_n, \quad \beta_n = \min(\beta, (1 + n) / (10 + n))

    Held-out images are shown to the average; checkpoints hold it as the student, and beside it the trained weights,
    with which a run goes on.

    Args:
        decay: beta, above 0 and below 1.

    Raises:
        ConfigError: for another decay.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"callbacks.average.decay must be above 0 and below 1, got {decay}")
        self.decay = float(decay)
        self.updates, self.step = 0, 0
        self.averaged: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] | None = None  # while the student holds the average

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        state = _state(pl_module)
        if not self.averaged:
            self.averaged = {name: tensor.clone() for name, tensor in state.items()}
        self.averaged = {name: tensor.to(state[name]) for name, tensor in self.averaged.items()}
        self.step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            return  # in the middle of an accumulation
        self.step = trainer.global_step
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in _state(pl_module).items():
            if tensor.is_floating_point():
                self.averaged[name].lerp_(tensor, 1 - decay)
            else:
                self.averaged[name].copy_(tensor)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.averaged and self.trained is None:
            self.trained = {name: tensor.clone() for name, tensor in _state(pl_module).items()}
            _load(pl_module, self.averaged)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # After the last step the student stays the average: it is what the run has made.
        if self.trained is not None and trainer.global_step < trainer.max_steps:
            _load(pl_module, self.trained)
            self.trained = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self.trained is not None:
            _load(pl_module, self.trained)
            self.trained = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.averaged:
            return
        trained = self.trained if self.trained is not None else _state(pl_module)
        checkpoint[KEY] = {"updates": self.updates, "trained": dict(trained)}
        checkpoint["state_dict"] = {
            **checkpoint["state_dict"],
            **{f"{STUDENT}{name}": tensor for name, tensor in self.averaged.items()},
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint.get(KEY)
        if kept is None:
            return  # of a run that began without: its average begins here
        self.updates = int(kept["updates"])
        self.averaged = {name: tensor.clone() for name, tensor in _state(pl_module).items()}
        _load(pl_module, kept["trained"])


def _state(module: L.LightningModule) -> dict[str, Tensor]:
    assert isinstance(module, Distiller)
    return {name: tensor.detach() for name, tensor in module.student.state_dict().items()}


@torch.no_grad()
def _load(module: L.LightningModule, values: dict[str, Tensor]) -> None:
    for name, tensor in _state(module).items():
        tensor.copy_(values[name])
