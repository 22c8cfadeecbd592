"""How many images a second the training takes."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `train/images_per_s` over all processes, validation left out.

    Args:
        every: steps between two values; the trainer's `log_every_n_steps`.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen = 0
        self.since = 0.0

    def _restart(self, *_: Any) -> None:
        self.seen, self.since = 0, time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += len(batch.names) * trainer.world_size
        if trainer.global_step % self.every == 0:
            elapsed = time.perf_counter() - self.since
            pl_module.log("train/images_per_s", self.seen / elapsed, batch_size=len(batch.names))
            self._restart()
