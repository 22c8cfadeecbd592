"""Values of options that nobody should give: each trains, or is refused by one message."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from pathlib import Path

from lightning import Trainer

from idd_seg import train
from tests.chaos.child import start
from tests.chaos.kills import PLAIN
from tests.chaos.outcome import Outcome

VALUES = (
    "-1",
    "0",
    "nan",
    "inf",
    "1e38",
    "null",
    "''",
    "x",
    "[]",
    "{}",
    "true",
    "[1,2]",
    "1.5",
    "-0.0",
    "${seed}",
    "99999999999999999999",
)
KEYS = (
    *("seed", "skip_non_finite", "compile", "measure_batches", "resume", "name", "pretrained", "balance"),
    *("data.size", "data.train_length", "data.val_length", "data.batch_size", "data.eval_batch_size", "data.seed"),
    *("data.num_workers", "data.timeout_s", "data.mean", "data.std", "data.num_classes", "data.class_names"),
    *("data.palette", "data.ignore_index", "data.image_scale", "data.cache", "data.frozen_epochs", "data.scene_seed"),
    *("student.dropout", "student.output_stride", "student.backbone", "optimizer.lr", "optimizer.weight_decay"),
    *("trainer.max_steps", "trainer.precision", "trainer.val_check_interval", "trainer.log_every_n_steps"),
    *("trainer.gradient_clip_val", "trainer.accumulate_grad_batches", "trainer.limit_val_batches", "trainer.devices"),
    *("trainer.accelerator", "trainer.deterministic", "trainer.strategy", "trainer.timeout_minutes"),
    *(
        "loss.ce_weight",
        "callbacks.last.every_n_steps",
        "callbacks.loss_spike.factor",
        "callbacks.loss_spike.above_guess",
        "callbacks.sample_gallery.count",
    ),
    *("scheduler.power", "scheduler.total_iters"),
)
QUICK = ("trainer.max_steps=1", "callbacks.sample_gallery.count=1", "data.train_length=8")


GROUPS = ("teacher", "student", "loss", "optimizer", "logger", "speed", "trainer", "data")
CHOICES = ("x", "''", "[]", "[x]", "../x", "${seed}", "none", "default")


TRAINER = tuple(name for name in inspect.signature(Trainer.__init__).parameters if name != "self")
# What shells and people write, and Hydra's grammar reads in another way or not at all.
ODD = ("a=b", "a[b", "a(b", "a#b", "~/x", "a b", "é", "a,b", "a:b", "{a", "'a", "a\\\\b", "$x", "lr=0.1", "1e3", "@x")
PLACES = ("data.root", "name", "student.weights", "teacher.checkpoint", "hydra.run.dir", "resume")
TYPOS = ("lr", "epochs", "batch_size", "data.bath_size", "loss.id_weight", "trainer.max_epoch", "student.pretraind")


def spellings(folder: Path, seed: int, number: int) -> Iterator[Outcome]:
    """Give an option of Lightning's Trainer, an odd text, or a name that is not there."""
    rng = random.Random(f"{seed}/spellings")
    for index in range(number):
        kind = index % 3
        option = f"{rng.choice(TYPOS)}={rng.choice(VALUES)}"
        if kind == 0:
            option = f"+trainer.{rng.choice(TRAINER)}={rng.choice(VALUES)}"
        elif kind == 1:
            option = f"{rng.choice(PLACES)}={rng.choice(ODD)}"
        yield _tried("spellings of options", folder, f"spellings{index}", option)


def options(folder: Path, seed: int, number: int) -> Iterator[Outcome]:
    """Train a step with an odd value of a random option, so many times."""
    rng = random.Random(seed)
    for index in range(number):
        option = f"{rng.choice(KEYS)}={rng.choice(VALUES)}"
        if index % 5 == 4:
            option = f"{rng.choice(GROUPS)}={rng.choice(CHOICES)}"
        yield _tried("options", folder, f"options{index}", option)


def _tried(group: str, folder: Path, name: str, option: str) -> Outcome:
    child = start(train, [*PLAIN, *QUICK, f"hydra.run.dir={name}", option], folder, f"{name}.log")
    code = child.wait(60)
    outcome = Outcome(group, option, noticed=code == 1, note=f"exit code {code}")
    if code is None:
        outcome.bad = "hang"
    elif not child.explained:
        outcome.bad, outcome.note = "unexplained", child.text[-2000:]
    return outcome
