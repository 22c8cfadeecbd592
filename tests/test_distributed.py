"""Runs of several processes: equal to one process, ended together, and started by torchrun or srun."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from idd_seg import train
from idd_seg.errors import Pruned
from idd_seg.runs import launcher
from idd_seg.runs.launcher import RankError, launch
from tests.helpers import TINY, clean_error
from tests.processes import Family, family, needs_proc, wait_for
from tests.trouble import MESSAGE, trouble

pytestmark = needs_proc

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
ENDLESS = ("trainer.max_steps=100000", "data.train_length=100000", "trainer.val_check_interval=100000")
CE = (*TINY, "loss=ce", "data.batch_size=2")
RUN_FILES = {"config.yaml", "run.json", "metrics.json", "metrics.csv", "checkpoints", "pictures", "train.log"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    with family(tmp_path_factory.mktemp("ranks")) as found:
        yield found


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Family]:
    """For what leaves processes behind if it fails."""
    with family(tmp_path) as found:
        yield found


def state(folder: Path) -> tuple[str, str | None]:
    described = json.loads((folder / "run.json").read_text())
    return described["state"], described["error"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# One process with the whole batch, and two with half of it each.


@pytest.fixture(scope="module")
def teacher(ours: Family) -> Path:
    """The checkpoint of a teacher, trained by the way."""
    first = ours.run(train, *TINY, "trainer.max_steps=1", "hydra.run.dir=first")
    assert first.returncode == 0, first.stderr
    return next((ours.folder / "cache" / "teachers").glob("*/checkpoints/last.ckpt"))


@pytest.fixture(scope="module")
def pair(ours: Family, teacher: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """The runs `one` and `two`, by the same teacher."""
    exact = (
        *(*TINY, "trainer.accelerator=cpu", "trainer.precision=64-true", "student.dropout=0", "loss.idd.scope=world"),
        *("data.val_length=5", "data.eval_batch_size=1", "trainer.val_check_interval=2", "trainer.max_steps=4"),
        *(f"teacher.checkpoint={teacher}", "loss.position_weight=1"),
    )
    one = ours.run(train, *exact, "data.batch_size=4", "hydra.run.dir=one")
    assert one.returncode == 0, one.stderr
    options = ("trainer.sync_batchnorm=true", "data.batch_size=2", "hydra.run.dir=two")
    two = ours.run(train, *exact, *DDP, *options)
    assert two.returncode == 0, two.stderr
    return {"one": one, "two": two}


TERMS = ("ce", "kd", "cwd", "idd", "position")
TRAINED = ("loss", "lr", *TERMS, *(f"{term}_weighted" for term in TERMS))
MEASURED = ("mIoU", "accuracy", "idd_distance", "position_mse_student", "position_mse_teacher")
COLUMNS = [*(f"train/{name}" for name in TRAINED), *(f"val/{name}" for name in MEASURED)]


@pytest.mark.parametrize("column", COLUMNS)
def test_two_processes_log_what_one_with_the_whole_batch_logs(column: str, ours: Family, pair: dict[str, Any]) -> None:
    one, two = ([(row["step"], row[column]) for row in rows(ours.folder / name) if row[column]] for name in pair)
    assert len(one) == (4 if column.startswith("train") else 2)
    assert [step for step, _ in two] == [step for step, _ in one]
    values = [float(value) for _, value in one]
    assert [float(value) for _, value in two] == pytest.approx(values, rel=1e-4, abs=1e-7)


def test_no_column_is_left_out_of_the_comparison(ours: Family, pair: dict[str, Any]) -> None:
    for name in pair:
        clocked = {"train/images_per_s", "train/data_wait"}
        assert set(rows(ours.folder / name)[0]) - {"epoch"} == {*COLUMNS, "step", *clocked}


def test_two_processes_end_with_the_weights_of_one(ours: Family, pair: dict[str, Any]) -> None:
    one, two = (
        torch.load(ours.folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for name in pair
    )
    assert list(one) == list(two)
    for key in one:
        if isinstance(one[key], torch.Tensor):
            torch.testing.assert_close(
                two[key], one[key], rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_evaluation_by_two_processes_counts_each_image_once(ours: Family, pair: dict[str, Any]) -> None:
    one, two = (json.loads((ours.folder / name / "metrics.json").read_text()) for name in pair)
    for part in ("last", "best"):
        assert two[part]["step"] == one[part]["step"]
        assert two[part]["miou"] == pytest.approx(one[part]["miou"], abs=1e-12)
        assert two[part]["pixel_accuracy"] == pytest.approx(one[part]["pixel_accuracy"], abs=1e-12)
        absent = {name for name, value in one[part]["iou"].items() if value is None}
        assert absent == {name for name, value in two[part]["iou"].items() if value is None}
        for name in one[part]["iou"].keys() - absent:
            assert two[part]["iou"][name] == pytest.approx(one[part]["iou"][name], abs=1e-12), name


def test_two_processes_leave_one_folder_and_one_log(ours: Family, pair: dict[str, Any]) -> None:
    one, two = (ours.folder / name for name in pair)
    assert {p.name for p in two.iterdir()} == {p.name for p in one.iterdir()}
    assert {p.name for p in two.iterdir()} >= RUN_FILES
    assert not (ours.folder / "outputs").exists()
    keys = [(row["step"], bool(row["val/mIoU"])) for row in rows(two)]
    assert len(keys) == len(set(keys))
    assert OmegaConf.load(two / "config.yaml").trainer.devices == 2
    assert state(two) == ("finished", None)


def test_rank_zero_alone_speaks(pair: dict[str, Any]) -> None:
    output, errors = pair["two"].stdout, pair["two"].stderr
    assert output.count("run folder:") == 1
    assert output.count("step 1/4") == 1
    assert output.count("step 4/4") == pair["one"].stdout.count("step 4/4")
    assert "rank" not in errors


# What happens to one process ends all of them.

ENDS = {
    "killed": ("killed", 1, "rank 1 of 2 ended by signal SIGKILL"),
    "left": ("left", 1, " of 2 ended with exit code "),
    "bug": ("bug", 1, "rank 1 of 2 ended with exit code 1"),
    "mistake": ("mistake", 1, MESSAGE),
    "mistake of rank 0": ("mistake", 0, MESSAGE),
}
QUICK = {"mistake"}  # for the others: the supervisor by itself, below


def in_trouble(name: str, ours: Family) -> subprocess.CompletedProcess[str]:
    kind, rank, _ = ENDS[name]
    start = time.monotonic()
    result = ours.run(train, *CE, *ENDLESS, *DDP, trouble(kind, rank), f"hydra.run.dir={name.replace(' ', '_')}")
    assert time.monotonic() - start < 60
    assert not ours.alive()
    return result


@pytest.fixture(scope="module")
def mistake(ours: Family) -> subprocess.CompletedProcess[str]:
    return in_trouble("mistake", ours)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ENDS])
def test_trouble_of_one_process_ends_the_run(name: str, ours: Family, request: pytest.FixtureRequest) -> None:
    message = ENDS[name][2]
    result = request.getfixturevalue("mistake") if name == "mistake" else in_trouble(name, ours)
    folder = ours.folder / name.replace(" ", "_")
    assert result.returncode == 1, result.stderr
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in error
    assert "Traceback" not in result.stderr  # of rank 0, whose group broke
    assert state(folder)[0] == "failed"
    assert message in (state(folder)[1] or "")
    if name == "bug":
        assert f"RuntimeError: {MESSAGE}" in (folder / "rank1.log").read_text()


def test_a_mistake_that_one_process_meets_is_one_message(mistake: subprocess.CompletedProcess[str]) -> None:
    assert MESSAGE in clean_error(mistake)


def test_processes_may_train_by_features_alone(ours: Family, teacher: Path) -> None:
    """No term looks at the logits, and DistributedDataParallel waits for every gradient."""
    options = (*TINY, *DDP, "loss=[at]", f"teacher.checkpoint={teacher}", "data.batch_size=2", "hydra.run.dir=features")
    result = ours.run(train, *options)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_pruned_run_is_pruned_in_all_processes(ours: Family) -> None:
    with pytest.raises(Pruned, match=MESSAGE):
        ours.run(train, *CE, *ENDLESS, *DDP, trouble("pruned", 1), "hydra.run.dir=pruned")
    assert not ours.alive()
    assert state(ours.folder / "pruned") == ("pruned", f"Pruned: {MESSAGE}")


def started(own: Family, *options: str) -> subprocess.Popen[str]:
    """Return the supervisor of a run whose processes have made a step each."""
    sign = f"+callbacks.sign={{_target_: tests.trouble.Sign, folder: '{own.folder}'}}"
    process = own.start("-m", "idd_seg.train", *CE, *ENDLESS, *DDP, sign, "hydra.run.dir=run", *options)
    signs = [own.folder / f"rank{rank}" for rank in range(2)]
    assert wait_for(lambda: all(s.exists() for s in signs) or process.poll() is not None, 120)
    assert process.poll() is None, process.communicate()[1]
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_run_ends_its_processes(number: signal.Signals, code: int, own: Family) -> None:
    process = started(own)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert "error: " not in errors
    assert not own.alive()
    assert state(own.folder / "run") == ("interrupted", None)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_ends_all_at_the_same_step(
    rank: int, number: signal.Signals, code: int, own: Family
) -> None:
    process = started(own)
    os.kill(int((own.folder / f"rank{rank}").read_text()), number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert not any("Traceback" in log.read_text() for log in (own.folder / "run").glob("rank*.log"))
    assert state(own.folder / "run") == ("interrupted", None)


@pytest.mark.slow
def test_processes_end_when_the_run_is_killed(own: Family) -> None:
    process = started(own)
    process.kill()
    process.wait(10)
    assert wait_for(lambda: not own.alive(), 10), own.alive()


@pytest.mark.slow
def test_a_process_that_stands_still_is_ended_too(own: Family) -> None:
    process = started(own)
    os.kill(int((own.folder / "rank1").read_text()), signal.SIGSTOP)
    time.sleep(1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert not own.alive()
    assert state(own.folder / "run") == ("interrupted", None)


BARE = "from omegaconf import OmegaConf; from idd_seg.runs.launcher import launch; launch(OmegaConf.create({}), 2)"


@pytest.mark.slow
def test_processes_end_when_the_run_is_killed_at_its_start(own: Family) -> None:
    process = own.start("-c", BARE.replace("{}", f"{{'run_dir': '{own.folder}'}}"))
    assert wait_for(lambda: sum("idd_seg.runs.worker" in command for command in own.alive().values()) == 2, 60)
    process.kill()
    process.wait(10)
    assert wait_for(lambda: not own.alive(), 30), own.alive()


# The supervisor by itself: a shell script in the place of Python.


@pytest.fixture
def stand_in(own: Family, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a script that the supervisor takes for Python, and launch two of it."""

    def run(script: str) -> None:
        path = own.folder / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("IDD_SEG_TESTED_BY", own.mark)
        monkeypatch.setattr("sys.executable", str(path))
        monkeypatch.setattr(launcher, "GRACE", 1.0)
        monkeypatch.setattr(launcher, "SAVING", 1.0)
        folder = own.folder / "run"
        folder.mkdir()
        launch(OmegaConf.create({"run_dir": str(folder)}), 2)

    return run


SLEEP = "exec sleep 600"


def test_all_end_well(stand_in: Any, own: Family) -> None:
    stand_in("exit 0")
    assert not list((own.folder / "run").iterdir())


def test_what_other_ranks_say_is_kept(stand_in: Any, own: Family) -> None:
    stand_in("echo said by $RANK of $WORLD_SIZE")
    assert (own.folder / "run" / "rank1.log").read_text() == "said by 1 of 2\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"[ $RANK = 1 ] && kill -KILL $$; {SLEEP}", r"rank 1 of 2 ended by signal SIGKILL.*rank1\.log.*batch_size"),
        (f"[ $RANK = 0 ] && exit 5; {SLEEP}", r"rank 0 of 2 ended with exit code 5"),
        # The one that ends by an exit code was only dragged along.
        ("[ $RANK = 1 ] && kill -SEGV $$; sleep 0.3; exit 1", "rank 1 of 2 ended by signal SIGSEGV"),
        # One ends well, the other does not hear SIGTERM.
        (f"[ $RANK = 1 ] && exit 3; trap '' TERM; {SLEEP}", "rank 1 of 2 ended with exit code 3"),
        ("[ $RANK = 0 ] && exit 0; sleep 0.5; exit 4", "rank 1 of 2 ended with exit code 4"),
    ],
)
def test_one_that_ends_early_is_named(script: str, message: str, stand_in: Any, own: Family) -> None:
    with pytest.raises(RankError, match=message):
        stand_in(script)
    assert not own.alive()


@pytest.mark.parametrize(("name", "raised"), [("INT", KeyboardInterrupt), ("TERM", SystemExit)])
@pytest.mark.parametrize("rest", [SLEEP, "trap '' TERM; exec sleep 600", "kill -STOP $$"])
def test_a_signal_ends_all(name: str, raised: type[BaseException], rest: str, stand_in: Any, own: Family) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised) as caught:
        stand_in(f"[ $RANK = 1 ] && sleep 0.5 && kill -{name} $PPID; {rest}")
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 143
    assert not own.alive()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interruption_between_two_starts_ends_the_first(
    stand_in: Any, own: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = launcher._start

    def interrupted(rank: int, *rest: Any) -> Any:
        if rank == 1:
            raise KeyboardInterrupt
        return start(rank, *rest)

    monkeypatch.setattr(launcher, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stand_in(SLEEP)
    assert not own.alive()


# torchrun and srun start the processes by themselves.


def torchrun(own: Family, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "idd_seg.train")
    process = own.start(*words, *arguments)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def assert_one_run(folder: Path) -> None:
    """A run of two processes lies in the only folder with today's date."""
    (run,) = {p.parent for p in folder.glob("outputs/**/run.json")}
    assert {p.parent for p in folder.glob("outputs/**/.hydra")} == {run}
    assert {p.name for p in run.iterdir()} >= RUN_FILES
    assert len(list(run.parent.iterdir())) == 1
    config = OmegaConf.load(run / "config.yaml")
    assert config.trainer.devices == 2
    found = rows(run)
    assert len({(row["step"], bool(row["val/mIoU"])) for row in found}) == len(found) == 4
    assert state(run) == ("finished", None)


def test_torchrun_makes_one_run(own: Family) -> None:
    result = torchrun(own, *CE, "trainer.accelerator=cpu")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("run folder:") == 1
    assert_one_run(own.folder)
    assert not own.alive()


@pytest.mark.slow
def test_a_finished_run_under_torchrun_is_left_by_all(own: Family) -> None:
    for expected in ("step 3/3", "nothing to do"):
        result = torchrun(own, *CE, "trainer.accelerator=cpu", "hydra.run.dir=run", "resume=auto")
        assert result.returncode == 0, result.stderr
        assert expected in result.stdout
        assert not own.alive()


@pytest.mark.slow
def test_a_bad_option_under_torchrun_is_one_error(own: Family) -> None:
    result = torchrun(own, *CE, "optimizer.lrr=1")
    assert result.returncode != 0
    messages = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert messages == [
        "error: there is no option 'optimizer.lrr'; did you mean 'optimizer.lr'? --help=all lists the options"
    ]
    assert not list(own.folder.glob("outputs/**/run.json"))
    assert not own.alive()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_in_one_process_of_torchrun_ends_all(rank: int, own: Family) -> None:
    result = torchrun(own, *CE, *ENDLESS, "trainer.accelerator=cpu", trouble("mistake", rank), "hydra.run.dir=run")
    assert result.returncode != 0
    assert f"error: {MESSAGE}" in result.stderr
    assert not own.alive()
    assert state(own.folder / "run")[0] in ("failed", "interrupted")


def test_a_sweep_under_a_launcher_is_refused(own: Family) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    process = own.start("-m", "idd_seg.train", "-m", *CE, "seed=0,1", env=place)
    output, errors = process.communicate(timeout=60)
    result = subprocess.CompletedProcess((), process.returncode, output, errors)
    assert "a sweep can't be started by torchrun or srun" in clean_error(result)
    assert not list(own.folder.iterdir())


def srun(own: Family, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start two processes as srun would, whose tools this machine need not have."""
    job = {"JOB_ID": str(os.getpid()), "STEP_NUM_TASKS": "2", "STEP_NUM_NODES": "1", "STEP_NODELIST": "127.0.0.1"}
    step = {f"SLURM_{name}": value for name, value in {**job, "NTASKS": "2"}.items()}
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return [own.start("-m", "idd_seg.train", *arguments, env={**step, **rank}) for rank in ranks]


@pytest.mark.slow
def test_srun_makes_one_run(own: Family) -> None:
    processes = srun(own, *CE, "trainer.accelerator=cpu")
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "run folder:" in outputs[0][0]
    assert not outputs[1][0]
    assert_one_run(own.folder)


@pytest.mark.slow
def test_a_bad_option_under_srun_ends_all(own: Family) -> None:
    processes = srun(own, *CE, "optimizer.lrr=1")
    first = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 1
    assert "error: there is no option 'optimizer.lrr'" in first[1]
    # srun need not end the others (--kill-on-bad-exit is the cluster's choice).
    second = processes[1].communicate(timeout=30)
    assert processes[1].returncode != 0
    assert "error: " not in second[1]
