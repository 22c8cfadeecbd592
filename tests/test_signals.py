"""Every signal, whoever gets it: a run ends with all its steps in a checkpoint and the right exit code, or goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers import TINY
from tests.processes import Family, family, needs_proc

pytestmark = needs_proc
STEPS = 400
SLOW = "+callbacks.slow={_target_: tests.trouble.Slow, seconds: 0.05}"
OPTIONS = (
    *(*TINY[:4], f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1", "trainer.val_check_interval=1000"),
    *("loss=ce", "hydra.run.dir=here", "callbacks.last.every_n_steps=1000", "resume=auto", SLOW),
)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Family]:
    with family(tmp_path) as found:
        yield found


def begun(own: Family, *options: str) -> subprocess.Popen[str]:
    """Start a run, and return it when it has made some steps."""
    process = own.start("-m", "idd_seg.train", *OPTIONS, *options)
    limit = time.monotonic() + 180
    while not (own.folder / "steps").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    return process


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def loaders(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid in children(process.pid) if Path(f"/proc/{pid}/cmdline").read_bytes()]


RECEIVERS: dict[str, Callable[[subprocess.Popen[str], int], None]] = {
    "parent": lambda process, number: process.send_signal(number),
    "group": lambda process, number: os.killpg(process.pid, number),
}


def assert_kept(own: Family, process: subprocess.Popen[str], number: int) -> None:
    """The step that was under way is the last in the checkpoint, and the run says that it was interrupted."""
    out, error = process.communicate(timeout=120)
    assert process.returncode == 128 + number, (process.returncode, out, error)
    assert "Traceback" not in error, error
    content = torch.load(own.folder / "here" / "checkpoints" / "last.ckpt", weights_only=True)
    made = int((own.folder / "steps").read_text())
    assert content["global_step"] == made > 0
    assert json.loads((own.folder / "here" / "run.json").read_text())["state"] == "interrupted"


CASES = [
    (receiver, number, workers)
    for receiver in RECEIVERS
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    for workers in (0, 2)
]
QUICK = {("group", signal.SIGTERM, 2), ("parent", signal.SIGUSR1, 0)}


@pytest.mark.parametrize(
    ("receiver", "number", "workers"),
    [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES],
)
def test_a_signal_costs_no_step(receiver: str, number: signal.Signals, workers: int, own: Family) -> None:
    process = begun(own, f"data.num_workers={workers}")
    RECEIVERS[receiver](process, number)
    assert_kept(own, process, number)


SLOW_ONES = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGUSR1)]


@pytest.mark.parametrize("number", [signal.SIGTERM, *SLOW_ONES])
def test_a_loader_process_leaves_signals_to_the_run(number: signal.Signals, own: Family) -> None:
    """Nobody who means the run tells one of its loader processes alone."""
    process = begun(own, "data.num_workers=2")
    for pid in loaders(process):
        os.kill(pid, number)
    before = int((own.folder / "steps").read_text())
    time.sleep(1.0)
    assert int((own.folder / "steps").read_text()) > before
    assert len(loaders(process)) == 2
    process.send_signal(signal.SIGTERM)
    assert_kept(own, process, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("receiver", ["parent", "group", "rank"])
def test_a_signal_to_a_run_of_two_processes_costs_no_step(receiver: str, number: signal.Signals, own: Family) -> None:
    process = begun(own, "trainer=ddp", "trainer.devices=2", "data.num_workers=2", "trainer.accelerator=cpu")
    if receiver == "rank":
        ranks = [
            pid for pid in children(process.pid) if b"idd_seg.runs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(ranks[1], number)
    else:
        RECEIVERS[receiver](process, number)
    assert_kept(own, process, number)


def test_the_time_of_a_run_is_up_and_it_resumes(own: Family) -> None:
    process = own.start("-m", "idd_seg.train", *OPTIONS, "data.num_workers=0", "trainer.max_time=1")
    _, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "since trainer.max_time is up" in error
    made = int((own.folder / "steps").read_text())
    assert json.loads((own.folder / "here" / "run.json").read_text())["state"] == "interrupted"
    process = own.start("-m", "idd_seg.train", *OPTIONS, "data.num_workers=0", "trainer.max_time=1")
    out, error = process.communicate(timeout=180)
    assert "nothing to do" not in out
    assert int((own.folder / "steps").read_text()) > made, error


@pytest.mark.slow
def test_a_teacher_whose_training_was_stopped_goes_on(own: Family) -> None:
    options = (*OPTIONS, "data.num_workers=0", "loss=[ce,kd]", f"teacher.training.max_steps={STEPS}")
    options = (*options, "callbacks.last.every_n_steps=5")
    process = own.start("-m", "idd_seg.train", *options)
    drafts = own.folder / "cache" / "teachers"
    limit = time.monotonic() + 180
    while not list(drafts.glob(".training-*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    (checkpoint,) = drafts.glob(".training-*/checkpoints/last.ckpt")
    reached = torch.load(checkpoint, weights_only=True)["global_step"]
    rest = (f"teacher.training.max_steps={STEPS}", "trainer.max_steps=1")
    process = own.start("-m", "idd_seg.train", *options, *rest)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "going on from" in out
    assert reached > 0
    assert not list(drafts.glob(".training-*"))
