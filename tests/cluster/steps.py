"""A callback that makes steps slow, and writes down each that is made: a step that is lost stands there twice."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning as L

FILE = "steps.csv"
FAST = 12


class Steps(L.Callback):
    """Appends each optimizer step's number to a file of the run folder; a run that begins soon makes slow ones.

    So it can't end before it is stopped, however busy the machine is. When it goes on, it is fast.

    Args:
        folder: the run folder.
        seconds: that a step takes at least, after the first `FAST` ones of a run that begins.
    """

    def __init__(self, folder: str, seconds: float) -> None:
        self.path, self.seconds = Path(folder) / FILE, seconds
        self.slow = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.slow = not self.path.exists()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.slow and trainer.global_step > FAST:
            time.sleep(self.seconds)
        if trainer.is_global_zero:
            restart = os.environ.get("SLURM_RESTART_COUNT", "0")
            with self.path.open("a") as file:
                file.write(f"{trainer.global_step},{restart}\n")


class Stuck(L.Callback):
    """Makes a first step that takes longer than any notice."""

    def on_train_batch_start(self, *_: Any) -> None:
        until = time.monotonic() + 900
        while time.monotonic() < until:
            time.sleep(1)


def made(folder: Path) -> list[int]:
    """Return the numbers of the steps that the run in a folder has made, in order, repeated ones too."""
    try:
        return [int(line.partition(",")[0]) for line in (folder / FILE).read_text().splitlines()]
    except FileNotFoundError:
        return []


def lost(folder: Path) -> int:
    """Return how many steps had to be made again."""
    steps = made(folder)
    return len(steps) - len(set(steps))
