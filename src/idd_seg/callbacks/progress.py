"""What a person sees while a run goes on: bars on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar


def progress() -> L.Callback:
    """Return a progress bar for a terminal, or lines for a log."""
    return RichProgressBar(leave=True) if sys.stdout.isatty() else ProgressLines()


class ProgressLines(L.Callback):
    """Prints step, loss and mIoU at most every `seconds`, and after each validation; rank 0 alone."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.last = 0.0
        self.start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if trainer.is_global_zero and (now - self.last >= self.seconds or trainer.global_step == 1):
            self.last = now
            self._print(trainer, ("train/loss",))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._print(trainer, ("train/loss", "val/mIoU"))

    def _print(self, trainer: L.Trainer, keys: tuple[str, ...]) -> None:
        done, total = trainer.global_step, trainer.max_steps
        left = (time.monotonic() - self.start) / max(done, 1) * (total - done)
        values = [
            f"{k.split('/')[1]} {float(trainer.callback_metrics[k]):.4f}" for k in keys if k in trainer.callback_metrics
        ]
        print(f"step {done}/{total}  {'  '.join(values)}  {left:.0f} s left", flush=True)
