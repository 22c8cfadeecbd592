"""Callbacks by which a run tells where it is, or by which one of its processes gets into trouble."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L

from idd_seg.errors import ConfigError, Pruned

MESSAGE = "this went wrong on purpose"


class Sign(L.Callback):
    """Writes `<folder>/rank<n>` when a process has made its first step."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            (self.folder / f"rank{trainer.global_rank}").write_text(str(os.getpid()))


class Slow(L.Callback):
    """Makes steps that take a while, and writes their number to `steps`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        time.sleep(self.seconds)
        if trainer.is_global_zero:
            draft = Path("steps.tmp")
            draft.write_text(str(trainer.global_step))
            draft.replace("steps")


class Taken(L.Callback):
    """Copies checkpoint and log as they stand when a checkpoint was written, as a kill then would leave them."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        save = trainer.save_checkpoint

        def taken(path: Path, *rest: Any, **more: Any) -> None:
            save(path, *rest, **more)
            place = self.folder.parent / "taken" / f"{trainer.global_step}_{path.stem}"
            place.mkdir(parents=True)
            shutil.copy(path, place / "taken.ckpt")
            shutil.copy(self.folder / "metrics.csv", place)

        trainer.save_checkpoint = taken  # type: ignore[method-assign, assignment]


class Trouble(L.Callback):
    """Ends one process after its first step, in one of the ways below; the others know nothing of it."""

    def __init__(self, kind: str, rank: int = 0) -> None:
        self.happen, self.rank = getattr(self, kind), rank

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 1 and trainer.global_rank == self.rank:
            self.happen()

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def left(self) -> None:
        os._exit(7)

    def bug(self) -> None:
        raise RuntimeError(MESSAGE)

    def mistake(self) -> None:
        raise ConfigError(MESSAGE)

    def interrupted(self) -> None:
        raise KeyboardInterrupt

    def pruned(self) -> None:
        raise Pruned(MESSAGE)


def trouble(kind: str, rank: int = 0) -> str:
    """Return the option that adds `Trouble` to a run."""
    return f"+callbacks.trouble={{_target_: tests.trouble.Trouble, kind: {kind}, rank: {rank}}}"
