"""How large the student's weights are: what a callback looks like."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch

from idd_seg.distillation.module import Distiller
from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_whole


class MyCallback(L.Callback):
    """Logs `train/student_norm`, the length of all weights of the student, and `train/student_growth`, its ratio to the
    length at the first step of the run.

    Args:
        every: steps between two values; the trainer's `log_every_n_steps`.

    Raises:
        ConfigError: for fewer than one.
    """

    def __init__(self, every: int = 50) -> None:
        require_whole("callbacks.my_callback.every", every, 1, error=ConfigError)
        self.every, self.step = every, 0
        self.first: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step
        if self.first is None:
            self.first = _norm(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # With accumulated gradients several batches make one step.
        if trainer.global_step == self.step or trainer.global_step % self.every:
            return
        self.step = trainer.global_step
        norm = _norm(pl_module)
        values = {"train/student_norm": norm, "train/student_growth": norm / self.first if self.first else float("nan")}
        pl_module.log_dict(values, batch_size=len(batch.names))

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on must know."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first = state_dict["first"]


@torch.no_grad()
def _norm(module: L.LightningModule) -> float:
    assert isinstance(module, Distiller)
    return float(torch.stack([p.float().square().sum() for p in module.student.parameters()]).sum().sqrt())
