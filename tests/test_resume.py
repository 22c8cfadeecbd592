"""A run that was stopped and goes on ends with the same weights, to the bit, and the same log, as one that was not."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from idd_seg.data.pipeline.dataset import EpochSampler, TrainingSampler
from idd_seg.loggers.metrics_csv import MetricsFile
from tests.helpers import TINY, run, run_here

OPTIONS = (
    *TINY[:5],
    "data.train_length=10",  # two batches an epoch, and two samples that fill none
    "trainer.log_every_n_steps=2",
    "teacher.training.max_steps=2",
    "trainer.max_steps=12",
    "trainer.val_check_interval=5",
    "trainer.deterministic=true",
    "callbacks.last.every_n_steps=2",
)
# Everything that keeps a state of its own: optimizers, queues, memory, accumulated gradients, workers' order.
RICH = (
    "loss=[ce,kd,idd,position,adversarial,cirkd_memory]",
    "loss.idd.memory=0.9",
    "trainer.accumulate_grad_batches=2",
    "data.num_workers=2",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was not stopped."""
    folder = tmp_path_factory.mktemp("resume")
    result = run("train", *OPTIONS, *RICH, "hydra.run.dir=whole", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def stopped(folder: Path, options: tuple[str, ...], number: int, rows: int) -> int:
    """Start or continue a run, send it a signal once its log has so many rows, and return its exit code."""
    environment = {**os.environ, "IDD_SEG_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "idd_seg.train", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    log = folder / "part" / "metrics.csv"
    try:
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:
            if log.is_file() and len(log.read_text().splitlines()) > rows:
                process.send_signal(number)
                break
            time.sleep(0.01)
        return process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def weights(run_dir: Path) -> dict[str, Any]:
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 12
    return {k: v for k, v in content["state_dict"].items() if isinstance(v, torch.Tensor)}


def log_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        clocked = ("train/images_per_s", "train/data_wait")
        return [{k: v for k, v in row.items() if k not in clocked} for row in csv.DictReader(file)]


def assert_same(folder: Path) -> None:
    ours, theirs = weights(folder / "part"), weights(folder / "whole")
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []
    assert log_of(folder / "part") == log_of(folder / "whole")


def test_a_run_that_was_killed_and_one_that_was_asked_to_stop_go_on_to_the_bit(whole: Path) -> None:
    part = (*OPTIONS, *RICH, "hydra.run.dir=part", "resume=auto")
    assert stopped(whole, part, signal.SIGKILL, 1) == -signal.SIGKILL
    assert stopped(whole, part, signal.SIGTERM, 4) == 128 + signal.SIGTERM
    result = run("train", *part, cwd=whole)
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout
    assert_same(whole)
    again = run("train", *part, cwd=whole)
    assert again.returncode == 0
    assert "finished already" in again.stdout


def keys(length: int, world: int, rank: int, batches: int, first: int = 0) -> list[tuple[int, int]]:
    sampler = EpochSampler(length, 3, shuffle=True, rank=rank, world=world)
    return list(TrainingSampler(sampler, 4, batches, first))


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 7, 9])
def test_a_training_can_begin_anywhere(first: int) -> None:
    assert keys(11, 1, 0, 9, first) == keys(11, 1, 0, 9)[4 * first :]


def test_each_epoch_of_a_training_shows_no_sample_twice() -> None:
    found = keys(11, 1, 0, 5)
    assert [epoch for epoch, _ in found] == [0] * 8 + [1] * 8 + [2] * 4
    for epoch in range(3):
        samples = [index for e, index in found if e == epoch]
        assert len(set(samples)) == len(samples)


def test_the_batches_of_all_processes_make_the_batch_of_one() -> None:
    order = [index for _, index in EpochSampler(24, 3, shuffle=True)]
    parts = [[index for _, index in keys(24, 2, rank, 3)] for rank in range(2)]
    for step in range(3):
        together = {i for part in parts for i in part[4 * step : 4 * step + 4]}
        assert together == set(order[8 * step : 8 * step + 8])


@pytest.fixture
def log(tmp_path: Path) -> MetricsFile:
    made = MetricsFile(str(tmp_path), every=3)
    for step in range(7):
        made.log_metrics({"train/loss": 10 - step, "epoch": 0}, step)
    made.log_metrics({"val/mIoU": 0.5}, 6)
    made.save()
    return made


def test_values_of_a_step_stand_in_one_row(log: MetricsFile) -> None:
    rows = log_of(log.path.parent)
    assert [row["step"] for row in rows] == [str(step) for step in range(7)]
    assert [row["val/mIoU"] for row in rows] == [""] * 6 + ["0.5"]
    assert float(rows[2]["train/loss"]) == 8


def test_rows_behind_the_checkpoint_are_dropped_and_a_cut_line_is_too(log: MetricsFile, tmp_path: Path) -> None:
    with log.path.open("a") as file:
        file.write("7,")
    again = MetricsFile(str(tmp_path))
    again.go_on(5)
    again.log_metrics({"train/loss": 0.25, "train/new": 1}, 5)
    again.save()
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert rows[-1]["train/new"] == "1.0"
    assert rows[0]["train/new"] == ""


def train_rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return [
        {name: value for name, value in row.items() if name.startswith(("step", "train/")) and value} for row in rows
    ]


def test_a_checkpoint_never_holds_a_step_that_the_log_has_not(tmp_path: Path) -> None:
    """A run that was killed and resumes from it does not log that step again, so the checkpoint holds the row."""
    options = (
        *OPTIONS,
        "loss=ce",
        "data.num_workers=0",
        "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=12",
    )
    taken = f"+callbacks.taken={{_target_: tests.trouble.Taken, folder: '{tmp_path / 'run'}'}}"
    done = run_here("train", *options, taken, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = set()
    for place in (tmp_path / "taken").glob("*_last"):
        content = torch.load(place / "taken.ckpt", weights_only=True)
        step = content["global_step"]
        (place.parent / "whole").mkdir(exist_ok=True)
        shutil.copy(place / "metrics.csv", place.parent / "whole" / "metrics.csv")
        MetricsFile(str(place.parent / "whole")).go_on(step, content.get("unlogged_row"))
        assert train_rows(place.parent / "whole") == train_rows(tmp_path / "run")[:step], place
        steps.add(step)
    assert steps == {2, 4, 6, 8, 10, 12}
