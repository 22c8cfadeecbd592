"""What a person sees while a run goes on: bars on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


def progress() -> L.Callback:
    """Return progress bars for a terminal, or lines for a log."""
    return ProgressBars() if sys.stdout.isatty() else ProgressLines()


def _values(trainer: L.Trainer, keys: tuple[str, ...]) -> str:
    metrics = trainer.callback_metrics
    return "  ".join(f"{key.split('/')[1]} {float(metrics[key]):.4f}" for key in keys if key in metrics)


class ProgressBars(L.Callback):
    """A bar over all training steps, and one over each validation; rank 0 alone.

    Lightning's own bars count the batches of an epoch, which tells little of a run that is measured in steps.

    Args:
        seconds: how often loss and mIoU are read from the device, at most.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.last = 0.0
        self.bars: Progress | None = None
        self.training: TaskID | None = None
        self.validating: TaskID | None = None

    def _start(self, trainer: L.Trainer) -> None:
        if self.bars is None and trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, TextColumn("{task.fields[note]}"), refresh_per_second=4)
            self.bars.start()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)
        if self.bars is not None:
            self.training = self.bars.add_task("train", total=trainer.max_steps, completed=trainer.global_step, note="")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bars is None or self.training is None:
            return
        self.bars.update(self.training, completed=trainer.global_step)
        # A GPU is asked for values only at the steps at which they are logged.
        if time.monotonic() - self.last >= self.seconds and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.last = time.monotonic()
            self.bars.update(self.training, note=_values(trainer, ("train/loss", "val/mIoU")))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(trainer)
        if self.bars is not None:
            total = sum(int(number) for number in trainer.num_val_batches)
            self.validating = self.bars.add_task("validate", total=total, note="")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self.bars is not None and self.validating is not None:
            self.bars.advance(self.validating)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bars is not None and self.validating is not None:
            self.bars.remove_task(self.validating)
            self.validating = None
        if self.bars is not None and self.training is not None:
            self.bars.update(self.training, note=_values(trainer, ("train/loss", "val/mIoU")))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bars is not None:
            self.bars.stop()
        self.bars = self.training = self.validating = None


class ProgressLines(L.Callback):
    """Prints step, loss and mIoU at most every `seconds`, and after each validation; rank 0 alone."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.last = 0.0
        self.start, self.first = 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = self.last = time.monotonic()
        self.first = trainer.global_step  # of a run that goes on

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
        left = (time.monotonic() - self.start) / max(done - self.first, 1) * (total - done)
        print(f"step {done}/{total}  {_values(trainer, keys)}  {left:.0f} s left", flush=True)
