"""What a run in a fork tells of itself by shared memory, and the faults that it meets at chosen steps."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from idd_seg.callbacks import atomic_checkpoint_io

OPTION = "+callbacks.sign={_target_: tests.chaos.signs.Sign}"
START, TRAINING, VALIDATING, WRITING = range(4)


class Board:
    """Numbers that a run writes and its parent reads: optimizer step, first step, phase, checkpoints begun."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take memory of its own, where a fork has inherited its parent's."""
        self.memory = mmap.mmap(-1, 16)

    def get(self) -> tuple[int, int, int, int]:
        return struct.unpack("<4i", self.memory[:16])  # type: ignore[return-value]

    def put(self, index: int, value: int) -> None:
        self.memory[4 * index : 4 * index + 4] = struct.pack("<i", value)

    def clear(self) -> None:
        self.memory[:16] = bytes(16)
        self.put(1, -1)


BOARD = Board()
# (step, what happens before it) of the run in this process; forks inherit it.
EVENTS: list[tuple[int, Callable[[], None]]] = []


class Sign(L.Callback):
    """Writes to the board where the run is, and lets happen what `EVENTS` holds."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        BOARD.put(1, trainer.global_step)
        BOARD.put(0, trainer.global_step)
        BOARD.put(2, TRAINING)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        BOARD.put(2, TRAINING)
        for event in [event for event in EVENTS if event[0] == trainer.global_step]:
            EVENTS.remove(event)
            event[1]()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        BOARD.put(0, trainer.global_step)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        BOARD.put(2, VALIDATING)

    def on_validation_batch_end(self, *_: Any) -> None:
        time.sleep(0.01)  # long enough to be met by a signal


class RankSign(L.Callback):
    """Writes `<folder>/rank<n>` with its process when one of several begins to train."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (self.folder / f"rank{trainer.global_rank}").write_text(str(os.getpid()))


STAGES = ("begin", "half", "flushed", "kept", "renamed")


def die_in_writing(stage: str, number: int) -> Callable[[], None]:
    """Return what kills this process by SIGKILL at a stage of the checkpoint of this number, counted from 1."""

    def arm() -> None:
        count = 0
        save, keep, names, sync = (
            atomic_checkpoint_io.torch.save,
            atomic_checkpoint_io._keep,
            atomic_checkpoint_io._flush_names,
            os.fsync,
        )

        def die(at: str) -> None:
            if at == stage and count >= number:
                os.kill(os.getpid(), signal.SIGKILL)

        def saving(content: Any, file: Any, *rest: Any, **more: Any) -> None:
            nonlocal count
            count += 1
            BOARD.put(2, WRITING)
            die("begin")
            save(content, file, *rest, **more)
            if stage == "half" and count >= number:
                file.truncate(file.tell() // 2)
                die("half")

        def syncing(handle: int) -> None:
            sync(handle)
            die("flushed")

        def keeping(target: Path) -> None:
            keep(target)
            die("kept")

        def naming(folder: Path) -> None:
            die("renamed")
            names(folder)

        atomic_checkpoint_io.torch.save = saving  # type: ignore[assignment]
        atomic_checkpoint_io.os.fsync, atomic_checkpoint_io._keep, atomic_checkpoint_io._flush_names = (
            syncing,
            keeping,
            naming,
        )

    return arm


def limit_files(size: int | None) -> Callable[[], None]:
    """Return what lets no file grow beyond `size` bytes, as on a full disk; None takes the limit away."""

    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))

    return set_limit


def failing(number: int) -> Callable[[], None]:
    """Return what lets each checkpoint fail by this error number from now on; 0 ends it."""
    save = atomic_checkpoint_io.torch.save

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    def set_failing() -> None:
        atomic_checkpoint_io.torch.save = fail if number else save  # type: ignore[assignment]

    return set_failing


def jumping_clock(seed: int) -> Callable[[], None]:
    """Return what lets the clock of the machine, as this process sees it, jump back and forth by days."""
    now, rng = time.time, random.Random(seed)

    def jump() -> None:
        time.time = lambda: max(0.0, now() + rng.uniform(-3e5, 1e5))

    return jump


def signal_worker(number: int) -> Callable[[], None]:
    """Return what sends a signal to one of the loader's processes."""

    def send() -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, number)

    return send
