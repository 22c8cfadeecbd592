"""Runs that are ended at random moments go on to the same weights and the same log as one that was never stopped."""

from __future__ import annotations

import csv
import hashlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from idd_seg import train
from tests.chaos.child import Child, start
from tests.chaos.outcome import Outcome
from tests.chaos.signs import BOARD, OPTION, STAGES, TRAINING, VALIDATING, die_in_writing

LIMIT = 120.0  # seconds for a run of a few steps
STEPS, EVERY = 24, 3
BASE = (
    *("data.size=[32,32]", "data.train_length=10", "data.val_length=4", "data.batch_size=4", "data.eval_batch_size=2"),
    *(f"trainer.max_steps={STEPS}", "trainer.val_check_interval=7", "trainer.log_every_n_steps=2"),
    *("trainer.deterministic=true", f"callbacks.last.every_n_steps={EVERY}", "teacher.training.max_steps=2"),
)
PLAIN = (*BASE, "loss=ce", "data.num_workers=0")
# Everything that keeps a state of its own, and processes that load ahead.
RICH = (
    *(*BASE, "loss=[ce,kd,idd,position,adversarial,cirkd_memory]", "loss.idd.memory=0.9"),
    *("trainer.accumulate_grad_batches=2", "data.num_workers=2"),
)
NOT_TIMED = ("train/images_per_s", "train/data_wait")


Log = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Result:
    """What is equal in two runs that are the same."""

    weights: str
    log: Log


def result_of(run: Path, steps: int = STEPS) -> Result:
    """Read the weights' hash and the log of a finished run."""
    content: Any = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == steps, content["global_step"]
    digest = hashlib.sha256()
    for name, value in content["state_dict"].items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
    with (run / "metrics.csv").open(newline="") as file:
        rows = [[f"{k}={v}" for k, v in row.items() if k not in NOT_TIMED] for row in csv.DictReader(file)]
    return Result(digest.hexdigest(), tuple(tuple(row) for row in rows))


def run_options(options: tuple[str, ...], name: str) -> list[str]:
    return [*options, OPTION, "resume=auto", f"hydra.run.dir={name}"]


def reference(options: tuple[str, ...], folder: Path, name: str) -> Result:
    """Train without a stop."""
    child = start(train, run_options(options, name), folder, f"{name}.log")
    assert child.wait(2 * LIMIT) == 0, child.text
    return result_of(folder / name)


@dataclass(frozen=True)
class Moment:
    """When and how a run is ended."""

    how: int
    where: str
    step: int = 0
    delay: float = 0.0
    stage: str = ""
    number: int = 0

    def __str__(self) -> str:
        detail = f"{self.stage} of checkpoint {self.number}" if self.stage else f"step {self.step} + {self.delay:.3f} s"
        return f"{signal.Signals(self.how).name} in {self.where}, {detail}"


def moments(seed: int, count: int) -> list[Moment]:
    """Choose the moments; how far a run is when a delay has passed is up to the machine."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        where = rng.choices(["training", "validation", "writing", "start"], [5, 2, 3, 1])[0]
        how = rng.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [3, 1, 1])[0]
        if where == "writing":
            moment = Moment(signal.SIGKILL, where, stage=rng.choice(STAGES), number=rng.randint(1, 3))
        elif where == "start":
            moment = Moment(signal.SIGKILL, where, delay=rng.uniform(0.0, 1.5))
        else:
            moment = Moment(how, where, step=rng.randint(0, 7), delay=rng.uniform(0.0, 0.05))
        found.append(moment)
    return found


def kills(group: str, options: tuple[str, ...], folder: Path, plan: list[Moment]) -> Iterator[Outcome]:
    """End runs at the planned moments, each run up to five times, and compare what they come to."""
    slug = group.translate(str.maketrans(" ", "_", ","))
    expected = reference(options, folder, f"{slug}-whole")
    for number, first in enumerate(range(0, len(plan), 5)):
        name = f"{slug}-part{number}"
        for moment in plan[first : first + 5]:
            yield _stop(group, options, folder, name, moment)
        yield _end(group, options, folder, name, expected)


def _stop(group: str, options: tuple[str, ...], folder: Path, name: str, moment: Moment) -> Outcome:
    BOARD.clear()
    prepare = die_in_writing(moment.stage, moment.number) if moment.stage else None
    child = start(train, run_options(options, name), folder, f"{name}.log", prepare)
    if not moment.stage and _await(child, moment):
        child.send(moment.how)
    code = child.wait(LIMIT)
    reached, began, phase = BOARD.get()[:3]
    outcome = Outcome(group, str(moment), note=f"exit code {code}, step {reached}", noticed=code != 0)
    if code is None:
        outcome.bad = "hang"
    elif code not in (0, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT):
        outcome.bad, outcome.note = "unexplained", child.text[-2000:]
    if code and began >= 0:
        outcome.lost = reached - _kept(folder / name)
    # Asked to stop, a run keeps the last step. A validation is given up, and made again; so are the batches of a step
    # that gathers several.
    gathers = any(option.startswith("trainer.accumulate_grad_batches=") for option in options)
    if code is not None and code > 0 and outcome.lost and phase == TRAINING and not gathers:
        outcome.bad = outcome.bad or "wrong"
    if outcome.lost > EVERY:
        outcome.bad = "wrong"
    return outcome


def difference(expected: Log, found: Log) -> str:
    """Return the first rows of two logs that differ."""
    for one, other in zip_longest(expected, found):
        if one != other:
            cells = sorted({*(one or ()), *(other or ())} - ({*(one or ())} & {*(other or ())}))
            return f"another log, of {len(found)} rows for {len(expected)}: {(one or other or ())[:2]}, {cells}"
    return "the same log"


def _await(child: Child, moment: Moment) -> bool:
    """Wait for the moment; tell whether the run still goes on."""
    reached: Callable[[], bool] = {
        "start": lambda: True,
        "training": lambda: BOARD.get()[2] == TRAINING and BOARD.get()[0] >= BOARD.get()[1] + moment.step,
        "validation": lambda: BOARD.get()[2] == VALIDATING,
    }[moment.where]
    limit = time.monotonic() + LIMIT
    while child.poll() is None and not reached() and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(moment.delay)
    return child.poll() is None


def _kept(run: Path) -> int:
    """Return the step of the checkpoint that the run would go on from, read as the program does."""
    from idd_seg.checkpoints.reader import latest_whole

    saved = latest_whole(run / "checkpoints" / "last.ckpt")
    return 0 if saved is None else int(torch.load(saved.path, weights_only=True)["global_step"])


def _end(group: str, options: tuple[str, ...], folder: Path, name: str, expected: Result) -> Outcome:
    child = start(train, run_options(options, name), folder, f"{name}.log")
    code = child.wait(LIMIT)
    outcome = Outcome(group, f"{name} goes on to its end", note=f"exit code {code}")
    if code is None:
        outcome.bad = "hang"
    elif code != 0:
        outcome.bad, outcome.note = "unexplained", child.text[-2000:]
    elif (found := result_of(folder / name)) != expected:
        outcome.bad = "wrong"
        outcome.note = "other weights" if found.weights != expected.weights else difference(expected.log, found.log)
    return outcome
