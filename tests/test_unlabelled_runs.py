"""Runs with photographs without labels: stopped and resumed, in two processes, and refused in one line."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idd_seg import train
from tests.data.layouts import photograph, save
from tests.helpers import TINY, clean_error, run_here
from tests.processes import Family, family, needs_proc
from tests.test_resume import OPTIONS, log_of, stopped, weights

MORE = ("data.unlabelled=more/*.png", "data.teacher_labels.confidence=0.1")
DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def photographs(folder: Path, number: int = 7) -> Path:
    rng = np.random.default_rng(0)
    for i in range(number):
        save(photograph(rng, (32, 32)), folder / "more" / f"{i}.png")
    return folder


MISTAKES = [
    (
        ["teacher=none", "loss=ce", *MORE],
        "data.unlabelled needs a teacher to learn from, and teacher=none; leave it out",
    ),
    (["loss=ce", *MORE], "no term of loss=[ce] learns from pictures without labels"),
    (["data.unlabelled=nothing/*.jpg"], "data.unlabelled=nothing/*.jpg finds no .png"),
    ([*MORE, "data.unlabelled_share=1.5"], "data.unlabelled_share must be a number from 0 to 1, got '1.5'"),
    ([*MORE, "data.teacher_labels.confidence=high"], "data.teacher_labels.confidence must be a number from 0 to 1"),
    ([*MORE, "data.teacher_labels.use=some"], "data.teacher_labels.use must be one of unlabelled, all, none"),
    (["data.unlabelled=list.txt"], "1 of 2 photographs are not there: gone.png"),
    (["data.unlabelled=bad"], "data.unlabelled: bad/0.jpg: no picture"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda x: x[-1] if isinstance(x, list) else None)
def test_a_mistake_is_told_before_the_teacher_is_trained(options: list[str], message: str, tmp_path: Path) -> None:
    photographs(tmp_path, 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_text("a text")
    (tmp_path / "list.txt").write_text("more/0.png\ngone.png\n")
    tiny = TINY[:-1] if "teacher=none" in options else TINY
    done = run_here("train", *tiny, *options, "hydra.run.dir=here", cwd=tmp_path)
    assert message in clean_error(done)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path: Path) -> None:
    photographs(tmp_path)
    rich = ("loss=[ce,kd,idd,cirkd_memory]", "trainer.accumulate_grad_batches=2", "data.num_workers=2")
    options = (*OPTIONS, *rich, *MORE, "trainer.log_every_n_steps=1")
    whole = run_here("train", *options, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    part = (*options, "hydra.run.dir=part", "resume=auto")
    assert stopped(tmp_path, part, signal.SIGKILL, 4) == -signal.SIGKILL
    again = run_here("train", *part, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    ours, theirs = weights(tmp_path / "part"), weights(tmp_path / "whole")
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []
    assert log_of(tmp_path / "part") == log_of(tmp_path / "whole")
    assert {row["train/unlabelled"] for row in log_of(tmp_path / "whole")} == {"0.5", ""}
    # Another photograph is another run.
    save(photograph(np.random.default_rng(3), (32, 32)), tmp_path / "more" / "new.png")
    (tmp_path / "part" / "metrics.json").unlink()
    other = run_here("train", *part, cwd=tmp_path)
    assert "was trained on other files of the split 'unlabelled'" in clean_error(other)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    with family(photographs(tmp_path_factory.mktemp("unlabelled"))) as found:
        yield found


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        clocked = ("train/images_per_s", "train/data_wait", "epoch")
        return [{k: v for k, v in row.items() if k not in clocked} for row in csv.DictReader(file)]


@pytest.mark.slow
@needs_proc
def test_two_processes_equal_one(ours: Family) -> None:
    first = ours.run(train, *TINY, "trainer.max_steps=1", "hydra.run.dir=first")
    assert first.returncode == 0, first.stderr
    teacher = next((ours.folder / "cache" / "teachers").glob("*/checkpoints/last.ckpt"))
    exact = (
        *(*TINY, *MORE, "trainer.accelerator=cpu", "trainer.precision=64-true", "student.dropout=0"),
        *(
            "loss.idd.scope=world",
            "data.val_length=5",
            "data.eval_batch_size=1",
            "trainer.val_check_interval=2",
            "trainer.max_steps=4",
        ),
        f"teacher.checkpoint={teacher}",
    )
    one = ours.run(train, *exact, "data.batch_size=8", "hydra.run.dir=one")
    assert one.returncode == 0, one.stderr
    options = ("trainer.sync_batchnorm=true", "data.batch_size=4", "hydra.run.dir=two")
    two = ours.run(train, *exact, *DDP, *options)
    assert two.returncode == 0, two.stderr
    found: list[list[dict[str, Any]]] = [rows(ours.folder / name) for name in ("one", "two")]
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        assert a.keys() == b.keys()
        assert {"train/confident", "val/confident_right"} <= a.keys()
        for key, value in a.items():
            assert float(b[key] or 0) == pytest.approx(float(value or 0), rel=1e-4, abs=1e-7), key
