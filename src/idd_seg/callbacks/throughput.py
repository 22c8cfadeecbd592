"""How many images a second the training takes, and how long it waits for them."""

from __future__ import annotations

import time
import warnings
from typing import Any

import lightning as L

from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_whole

LIMIT = 0.05  # share of the time


class Throughput(L.Callback):
    """Logs `train/images_per_s` over all processes and `train/data_wait`, the share of the time without a batch.

    Validation is left out of both; `Prefetcher` tells what counts as waiting. Above `LIMIT` a warning tells what may
    help.

    Args:
        every: steps between two values; the trainer's `log_every_n_steps`.

    Raises:
        ConfigError: for fewer than one.
    """

    def __init__(self, every: int) -> None:
        require_whole("callbacks.throughput.every", every, 1, error=ConfigError)
        self.every = every
        self.seen, self.since, self.waited = 0, 0.0, 0.0
        self.intervals = self.step = 0
        self.warned = False

    def _restart(self, trainer: L.Trainer) -> None:
        self.seen, self.since, self.waited = 0, time.perf_counter(), _waited(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step
        self._restart(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += len(batch.names) * trainer.world_size
        if trainer.global_step == self.step:
            return  # in the middle of an accumulation
        self.step = trainer.global_step
        if self.step % self.every == 0:
            elapsed = time.perf_counter() - self.since
            share = (_waited(trainer) - self.waited) / elapsed
            rates = {"train/images_per_s": self.seen / elapsed, "train/data_wait": share}
            pl_module.log_dict(rates, batch_size=len(batch.names))
            self._judge(share)
            self._restart(trainer)

    def _judge(self, share: float) -> None:
        self.intervals += 1
        # The workers have just been started in the first.
        if share > LIMIT and self.intervals > 1 and not self.warned:
            self.warned = True
            warnings.warn(
                f"{100 * share:.0f} % of the time the training waits for data; more workers "
                "(data.num_workers=N), decoded pictures kept in memory or on a disk (data.cache=ram|disk), or colours "
                "changed on the device (data.augment.on_device=true) may help",
                stacklevel=2,
            )


def _waited(trainer: L.Trainer) -> float:
    feed = getattr(getattr(trainer, "datamodule", None), "feed", None)
    return 0.0 if feed is None else float(feed.waited)
