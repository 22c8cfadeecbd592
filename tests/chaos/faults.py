"""What machines and people do to a run: disks that fill, clocks that jump, processes that die or stand still."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from idd_seg import train
from idd_seg.data.shapes import ShapesSource
from tests.chaos.child import Child, start
from tests.chaos.kills import BASE, PLAIN, Result, result_of, run_options
from tests.chaos.outcome import Outcome
from tests.chaos.signs import BOARD, EVENTS, TRAINING, failing, jumping_clock, limit_files, signal_worker

LIMIT = 120.0
ENDLESS = ("trainer.max_steps=100000", "data.train_length=100000", "trainer.val_check_interval=100000")
WORKERS = (*BASE, "loss=ce", "data.num_workers=2", "data.timeout_s=2")

Events = list[tuple[int, Callable[[], None]]]


def ran(folder: Path, name: str, options: tuple[str, ...], events: Events) -> Child:
    """Run to the end, with what happens at its steps."""
    BOARD.clear()
    child = start(train, run_options(options, name), folder, f"{name}.log", lambda: EVENTS.extend(events))
    child.wait(LIMIT)
    return child


def judged(group: str, case: str, child: Child, code: int, *words: str) -> Outcome:
    """Judge by the exit code and by what must have been said."""
    outcome = Outcome(group, case, noticed=bool(words), note=f"exit code {child.code}")
    if child.code == -signal.SIGKILL and code != child.code:
        outcome.bad = "hang"
    elif not child.explained or child.code != code or any(word not in child.text for word in words):
        outcome.bad, outcome.note = "unexplained", child.text[-2000:]
    return outcome


def same(outcome: Outcome, run: Path, expected: Result) -> Outcome:
    if not outcome.bad and result_of(run) != expected:
        outcome.bad = "wrong"
    return outcome


# Writing


def full_disks(folder: Path, expected: Result) -> Iterator[Outcome]:
    """Checkpoints that can't be written, for a while or to the end."""
    group = "disk full, or gone"
    ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "no file may grow": (limit_files(60_000), limit_files(None)),
        "no space left": (failing(errno.ENOSPC), failing(0)),
        "no permission": (failing(errno.EACCES), failing(0)),
        "stale file handle": (failing(errno.ESTALE), failing(0)),
        "checkpoints gone for a moment": moved(folder / "disk4" / "checkpoints"),
    }
    for number, (case, (begin, end)) in enumerate(ways.items()):
        name = f"disk{number}"
        child = ran(folder, name, PLAIN, [(5, begin), (12, end)])
        yield same(judged(group, case, child, 0, "can't be written at step"), folder / name, expected)
    begin, end = ways["no file may grow"]
    child = ran(folder, "disk-end", PLAIN, [(5, begin)])
    yield judged(group, "no file may grow, to the end", child, 1, "of the end of the training, can't be written")
    child = ran(folder, "disk-end", PLAIN, [])
    yield same(judged(group, "room again, resume=auto", child, 0, "going on from"), folder / "disk-end", expected)


def moved(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what takes a folder away, with a file in its place, and what puts it back."""
    aside = path.with_name("aside")

    def take() -> None:
        path.rename(aside)
        path.write_text("in the way")

    def put_back() -> None:
        path.unlink()
        aside.rename(path)

    return take, put_back


def damaged_checkpoints(folder: Path, expected: Result) -> Iterator[Outcome]:
    """A killed run whose last checkpoint, or whose last two, are damaged when it goes on."""
    group = "checkpoints damaged before resume=auto"
    for case, names in {"the last": ["last"], "the last two": ["last", "last.previous"]}.items():
        name = "damaged" + str(len(names))
        ran(folder, name, PLAIN, [(14, lambda: os.kill(os.getpid(), signal.SIGKILL))])
        for stem in names:
            path = folder / name / "checkpoints" / f"{stem}.ckpt"
            path.write_bytes(path.read_bytes()[:-1000])
        child = ran(folder, name, PLAIN, [])
        if len(names) == 1:
            words = ("is damaged or truncated", "the run goes on from", "last.previous.ckpt")
            yield same(judged(group, case, child, 0, *words), folder / name, expected)
        else:
            yield judged(group, case, child, 1, "the run can't go on", "last.previous.ckpt")


# Clocks and company


def clocks(folder: Path, expected: Result, seed: int, number: int) -> Iterator[Outcome]:
    for index in range(number):
        child = ran(folder, f"clock{index}", PLAIN, [(0, jumping_clock(seed + index))])
        yield same(judged("clock that jumps", f"{index}", child, 0), folder / f"clock{index}", expected)


def two_runs(folder: Path) -> Iterator[Outcome]:
    BOARD.clear()
    first = start(train, run_options((*PLAIN, *ENDLESS), "shared"), folder, "shared1.log")
    limit = time.monotonic() + LIMIT
    while BOARD.get()[2] != TRAINING and time.monotonic() < limit:
        time.sleep(0.01)
    for resume in ("auto", "never"):
        options = [*run_options((*PLAIN, *ENDLESS), "shared"), f"resume={resume}"]
        second = start(train, options, folder, f"shared-{resume}.log")
        second.wait(LIMIT)
        yield judged("two runs in one folder", f"resume={resume}", second, 1, "is in use by a run that goes on")
    first.send(signal.SIGTERM)
    first.wait(LIMIT)
    yield judged("two runs in one folder", "the first is not disturbed", first, 128 + signal.SIGTERM)


# Processes that load


def workers(folder: Path) -> Iterator[Outcome]:
    group = "loader processes"
    child = ran(folder, "killed", WORKERS, [(3, signal_worker(signal.SIGKILL))])
    yield judged(group, "one is killed", child, 1, "a loader process was killed", "num_workers")
    child = ran(folder, "bus", WORKERS, [(3, signal_worker(signal.SIGBUS))])
    yield judged(group, "one finds no shared memory", child, 1, "/dev/shm", "give more")
    child = hanging(folder, "hanging", deaf=False)
    yield judged(group, "one sample never comes", child, 1, "shapes:0/train/3: reading it takes more than 2 s")
    child = hanging(folder, "deaf", deaf=True)
    yield judged(group, "nor does a signal end the wait", child, 1, "no batch came for 2 s", "shapes:0/train/3")


def hanging(folder: Path, name: str, deaf: bool) -> Child:
    """Run with a source that never gives its fourth item; `deaf` as processes are that wait for a disk."""

    def prepare() -> None:
        get = ShapesSource.__getitem__

        def slow(source: ShapesSource, index: int) -> Any:
            if deaf and index == 3 and source.split == "train":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            while index == 3 and source.split == "train":
                time.sleep(1)
            return get(source, index)

        ShapesSource.__getitem__ = slow  # type: ignore[method-assign]

    BOARD.clear()
    child = start(train, run_options(WORKERS, name), folder, f"{name}.log", prepare)
    child.wait(LIMIT)
    return child
