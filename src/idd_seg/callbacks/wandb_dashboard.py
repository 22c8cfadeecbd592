"""What W&B shows beside the curves: classes, matrices and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from idd_seg.callbacks.end_of_training import EndOfTraining
from idd_seg.distillation.module import Distiller
from idd_seg.loggers.wandb_panels import panels
from idd_seg.loggers.wandb_run import WandbRun


class WandbDashboard(EndOfTraining):
    """Logs `val/iou/<class>` at each validation; at the end the summary, and what lies in `exhibits/`.

    Does nothing without `logger=wandb`, and on ranks other than 0.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.exhibits = Path(run_dir) / "exhibits"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        run = _run_of(trainer)
        if run is not None and isinstance(pl_module, Distiller) and not trainer.sanity_checking:
            iou = pl_module.validated[trainer.global_step].iou
            names = _class_names(pl_module, len(iou))
            values = {f"val/iou/{name}": value for name, value in zip(names, iou, strict=True) if value == value}
            run.log_metrics(values, trainer.global_step)
        super().on_validation_end(trainer, pl_module)

    def ended(self, trainer: L.Trainer, module: Distiller) -> None:
        run = _run_of(trainer)
        if run is None:
            return
        step = max(module.validated)
        scores = module.validated[step]
        names = _class_names(module, len(scores.iou))
        run.attempt(lambda opened: opened.summary.update(_summary(module)))
        run.attempt(lambda opened: opened.log({**panels(self.exhibits, scores, names), "trainer/global_step": step}))


def _run_of(trainer: L.Trainer) -> WandbRun | None:
    if not trainer.is_global_zero or trainer.state.fn not in (TrainerFn.FITTING, TrainerFn.VALIDATING):
        return None
    return next((logger for logger in trainer.loggers if isinstance(logger, WandbRun)), None)


def _class_names(module: Distiller, count: int) -> list[str]:
    return list(module.metadata.get("class_names") or map(str, range(count)))


def _summary(module: Distiller) -> dict[str, Any]:
    found: dict[str, Any] = {}
    last = max(module.validated)
    best = max(module.validated, key=lambda step: module.validated[step].miou)
    for name, step in (("last", last), ("best", best)):
        found |= {f"{name}/mIoU": module.validated[step].miou, f"{name}/step": step}
    return found
