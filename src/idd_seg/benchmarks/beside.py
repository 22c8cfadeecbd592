"""A training and the bare step in turns, so that both meet the machine in the same state."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch

from idd_seg.benchmarks.bare import Bare, Pictures
from idd_seg.benchmarks.stopwatch import Silent, Stopwatch, Watched

WARM_UP = 2  # blocks


@dataclass
class Blocks:
    """Seconds a step of blocks of steps."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


class Beside(L.Callback):
    """Takes bare steps between those of the training, times both, and ends the training; some last steps by parts."""

    PARTED = 3

    def __init__(
        self,
        bare: Bare,
        blocks: Blocks,
        module: Watched,
        data: Pictures,
        clock: Stopwatch,
        repeats: int,
        block: int,
        in_parts: bool = True,
    ) -> None:
        self.bare, self.blocks, self.module, self.data, self.clock = bare, blocks, module, data, clock
        self.repeats, self.block, self.in_parts = repeats, block, in_parts
        self.silent = Silent(clock.device)
        self.steps, self.since, self.parted = 0, 0.0, 0

    def _now(self) -> float:
        if self.clock.device.type == "cuda":
            torch.cuda.synchronize(self.clock.device)
        return time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps += 1
        if self.parted:
            self._end_part(trainer)
        elif self.steps % self.block == 0:
            self._end_block(trainer)

    def _end_block(self, trainer: L.Trainer) -> None:
        ended = self._now()
        if self.steps > WARM_UP * self.block:
            self.blocks.ours.append((ended - self.since) / self.block)
        start = self._now()
        for _ in range(self.block):
            self.bare.step(self.silent)
        if self.steps > WARM_UP * self.block:
            self.blocks.bare.append((self._now() - start) / self.block)
        if len(self.blocks.ours) == self.repeats:
            if not self.in_parts:
                trainer.should_stop = True
                return
            self.parted = 1
            self.module.watch = self.clock
            self.data.watch = self.clock
            self.clock.watch(self.module.student, "student")
            self.clock.start("rest")
        self.since = self._now()

    def _end_part(self, trainer: L.Trainer) -> None:
        if self.parted == self.PARTED:
            self.clock.stop()
            self.data.watch = None
            trainer.should_stop = True
            return
        self.parted += 1


class Stop(L.Callback):
    """Ends the training after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.left -= 1
        trainer.should_stop = self.left <= 0
