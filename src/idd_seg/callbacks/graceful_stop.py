"""SIGTERM, SIGINT, SIGUSR1 and SIGUSR2: a run ends between two steps, with a checkpoint from which it can go on."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import SIGTERMException

from idd_seg.ops import private_api

# By which systems stop a run: SLURM sends what `--signal` names, and submitit has it send SIGUSR2.
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
SIGNALS = (signal.SIGINT, *STOPPING)

SAME = 3.0  # seconds
SAME_KEY = 0.5  # of ctrl-C, which an impatient user presses twice
TIME = 1 << 10  # in the place of a signal's number: the run's time is up


class GracefulStop(L.Callback):
    """Lets the step that goes on finish; a second wish ends the run at once.

    Batch systems send the same signal twice within milliseconds, so one that comes within `SAME` seconds of the first
    is the same wish.

    Lightning's own handler of SIGTERM sends a message to the other processes from wherever this one stands, which may
    wait for another; and its SIGINT stops in the middle of a step. Several processes agree before each batch whether
    one of them has been told to stop, so that none goes on alone; where they use GPUs, they agree without waiting for
    these.

    Args:
        minutes: after which a process that waits for the others gives up.
        max_time: after which the run stops by itself, as at a signal; None leaves it to go on. It counts anew in each
            part of a run that resumes.

    Attributes:
        number: of the signal that came, here or to another process, or None.
    """

    def __init__(self, minutes: float = 30.0, max_time: timedelta | None = None) -> None:
        self.seconds = None if max_time is None else max_time.total_seconds()
        self.start = 0.0
        self.number: int | None = None
        self.told = 0.0  # when it came
        self.timeout = timedelta(minutes=minutes)
        self.group: Any = None
        self.before: dict[int, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            if dist.get_backend() != dist.Backend.GLOO:
                self.group = dist.new_group(backend=dist.Backend.GLOO, timeout=self.timeout)
            # Called by Lightning before each batch, for its message, which waits for the GPU.
            private_api.call_before_each_batch(trainer, self._agree)
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread alone

        def stop(number: int, frame: Any) -> None:
            if self.number is not None:
                if time.monotonic() < self.told + (SAME_KEY if number == signal.SIGINT else SAME):
                    return
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            self.number, self.told = number, time.monotonic()
            if trainer.world_size == 1:
                private_api.end_before_next_batch(trainer)

        # It would put its handlers before ours, after this hook.
        private_api.leave_signals_alone(trainer)
        self.before = {number: signal.signal(number, stop) for number in SIGNALS}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        up = self.seconds is not None and time.monotonic() - self.start >= self.seconds
        if up and self.number is None and trainer.global_step < trainer.max_steps:
            self.number = TIME
            if trainer.world_size == 1:
                private_api.end_before_next_batch(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.release(trainer)

    def release(self, trainer: L.Trainer) -> None:
        """Give the signals back; Lightning calls no `teardown` after a training that failed."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
        private_api.give_back_signals(trainer)

    def _agree(self) -> None:
        """Stop all processes if one has been told to.

        Raises:
            SIGTERMException: in each of them, before the same batch.
        """
        told = torch.tensor(self.number or 0)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.group)
        if told:
            self.number = int(told)
            raise SIGTERMException
