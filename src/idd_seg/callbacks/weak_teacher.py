"""A teacher that is worse than its student: said once, on the held-out images that the terms measure."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch

from idd_seg.distillation.module import Distiller
from idd_seg.metrics.confusion import ConfusionMatrix, scores


class WeakTeacher(L.Callback):
    """Compares teacher and student by mIoU on the first `measure_batches` held-out batches of each process.

    Both have been asked in validation already; the teacher counts at the first alone, as it stays as it is.
    """

    def __init__(self) -> None:
        self.teacher: float | None = None
        self.matrices: dict[str, ConfusionMatrix] = {}
        self.warned = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.matrices = {}
        if self.warned or not isinstance(pl_module, Distiller) or pl_module.teacher is None:
            return
        confusion = pl_module.confusion
        for name in ("student", "teacher") if self.teacher is None else ("student",):
            made = ConfusionMatrix(confusion.num_classes, confusion.ignore_index)
            self.matrices[name] = made.to(pl_module.device)

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self.matrices and "teacher" in outputs:
            for name, matrix in self.matrices.items():
                matrix.update(outputs[name], batch.label)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = {name: scores(matrix.compute()).miou for name, matrix in self.matrices.items()}
        self.matrices = {}
        if not found:
            return
        self.teacher = found.get("teacher", self.teacher)
        if self.teacher is not None and found["student"] > self.teacher:
            self.warned = True
            if trainer.is_global_zero:
                warnings.warn(
                    f"the teacher is worse than its student at step {trainer.global_step}: mIoU "
                    f"{100 * self.teacher:.2f} against {100 * found['student']:.2f} on the same held-out images "
                    "(measure_batches). Is it the right file (teacher.checkpoint), of the same classes in the same "
                    "order, and has it been trained to its end? loss=ce trains without it; it is said once",
                    stacklevel=2,
                )
