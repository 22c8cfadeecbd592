"""Sweeps: jobs of one and of several processes, jobs that fail, and sweep folders that hold something already."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from idd_seg import train
from idd_seg.config.groups import config_dir
from tests.helpers import TINY
from tests.processes import Family, family, needs_proc
from tests.runs.test_run_folder import HOLD
from tests.trouble import trouble

pytestmark = needs_proc

SMALL = (*TINY, "data.batch_size=2", "trainer.accelerator=cpu", "hydra.sweep.subdir=${hydra:job.num}")
CE = (*SMALL, "loss=ce")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    with family(tmp_path_factory.mktemp("sweeps")) as found:
        yield found


def described(folder: Path, key: str) -> str | None:
    found: str | None = json.loads((folder / "run.json").read_text())[key]
    return found


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


LAST_WORD = "error: not all jobs of the sweep have ended well; what failed is said above"


@pytest.fixture(scope="module")
def mixed(ours: Family) -> subprocess.CompletedProcess[str]:
    """Jobs of two processes and of one; a negative weight is refused."""
    swept = ("trainer=ddp", "trainer.devices=2,1", "loss.idd_weight=0.5,-1")
    return ours.run(train, "-m", *SMALL, "loss=[ce,idd]", *swept, "hydra.sweep.dir=mixed")


JOBS = [(2, 0.5), (2, -1), (1, 0.5), (1, -1)]


def test_jobs_that_fail_are_named_and_the_others_go_on(mixed: subprocess.CompletedProcess[str], ours: Family) -> None:
    assert mixed.returncode == 1
    assert "Traceback" not in mixed.stderr
    found = errors(mixed)
    assert [line.split(" (")[0] for line in found[:-1]] == ["error: job 1", "error: job 3"]
    assert all("loss.idd_weight=-1" in line.split("):")[0] for line in found[:-1])
    assert found[-1] == LAST_WORD
    finished = {number for number in range(4) if (ours.folder / "mixed" / str(number) / "metrics.json").exists()}
    assert finished == {0, 2}


def test_each_job_has_its_own_configuration(mixed: subprocess.CompletedProcess[str], ours: Family) -> None:
    for number, (devices, weight) in enumerate(JOBS):
        folder = ours.folder / "mixed" / str(number)
        # A job that is refused at once need not say more than Hydra does.
        config = OmegaConf.load(folder / ("config.yaml" if weight > 0 else ".hydra/config.yaml"))
        assert (config.trainer.devices, config.loss.idd.weight) == (devices, weight) or weight < 0
        assert (config.trainer.devices, config.loss.idd_weight) == (devices, weight)


def test_the_processes_of_a_job_share_its_folder(mixed: subprocess.CompletedProcess[str], ours: Family) -> None:
    folder = ours.folder / "mixed"
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"0", "1", "2", "3"}
    assert not (ours.folder / "outputs").exists()
    assert not (ours.folder / "multirun").exists()
    for number in (0, 2):
        lines = (folder / str(number) / "metrics.csv").read_text().splitlines()
        assert len(lines) == 1 + 3 + 1  # a heading, the steps, the validation
        assert described(folder / str(number), "state") == "finished"
        assert mixed.stdout.count(f"run folder: {folder / str(number)}\n") == 1
    assert not ours.alive()


@pytest.fixture(scope="module")
def sweep(ours: Family) -> Path:
    """The folder of two finished jobs."""
    result = ours.run(train, "-m", *CE, "seed=0,1", "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    return ours.folder / "sweep"


def test_a_sweep_ends_with_its_runs_the_best_first(sweep: Path, ours: Family) -> None:
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {job: 100 * json.loads((sweep / job / "metrics.json").read_text())["last"]["miou"] for job in ("0", "1")}
    assert [row["folder"] for row in rows] == sorted(scores, key=lambda job: -scores[job])
    for row in rows:
        assert (row["seed"], float(row["mIoU"])) == (row["folder"], pytest.approx(scores[row["folder"]], abs=0.01))


def test_jobs_without_a_result_stand_at_the_end(mixed: subprocess.CompletedProcess[str], ours: Family) -> None:
    with (ours.folder / "mixed" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mIoU"] == "" for row in rows] == [False, False, True, True]
    assert {row["loss.idd_weight"] for row in rows[2:]} == {"-1"}
    (line,) = [line for line in mixed.stdout.splitlines() if line.startswith("the best: ")]
    command = shlex.split(line.partition("python -m idd_seg.train ")[2])
    assert {"loss=[ce,idd]", "loss.idd_weight=0.5", f"trainer.devices={rows[0]['trainer.devices']}"} <= set(command)


def times(sweep: Path) -> list[int]:
    return [(sweep / job / "metrics.csv").stat().st_mtime_ns for job in ("0", "1")]


def test_a_second_sweep_into_the_same_folder_is_refused(sweep: Path, ours: Family) -> None:
    before = times(sweep)
    result = ours.run(train, "-m", *CE, "seed=0,1", "hydra.sweep.dir=sweep")
    assert result.returncode == 1
    first, second, last = errors(result)
    for number, line in enumerate((first, second)):
        assert line.startswith(f"error: job {number} (")
        assert "holds a run already: resume=auto" in line
    assert last == LAST_WORD
    assert times(sweep) == before


def test_finished_jobs_are_skipped_with_auto(sweep: Path, ours: Family) -> None:
    before = times(sweep)
    result = ours.run(train, "-m", *CE, "seed=0,1", "hydra.sweep.dir=sweep", "resume=auto")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finished already, best mIoU") == 2
    assert "step 1/" not in result.stdout
    assert times(sweep) == before


def test_auto_trains_the_jobs_that_are_new(sweep: Path, ours: Family) -> None:
    result = ours.run(train, "-m", *CE, "seed=0,1,2", "hydra.sweep.dir=sweep", "resume=auto")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finished already") == 2
    assert described(sweep / "2", "state") == "finished"


def test_auto_refuses_jobs_whose_number_had_other_options(sweep: Path, ours: Family) -> None:
    result = ours.run(train, "-m", *CE, "seed=1,0", "hydra.sweep.dir=sweep", "resume=auto")
    assert result.returncode == 1
    assert "seed=0, not 1" in errors(result)[0]
    assert "seed=1, not 0" in errors(result)[1]


def test_a_job_whose_folder_is_in_use_is_refused_and_the_next_one_goes_on(ours: Family) -> None:
    folder = ours.folder / "busy"
    (folder / "0").mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(folder / "0" / ".lock")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        result = ours.run(train, "-m", *CE, "seed=0,1", "hydra.sweep.dir=busy")
    finally:
        other.kill()
        other.communicate()
    assert result.returncode == 1
    first, last = errors(result)
    assert first.startswith("error: job 0 (")
    assert "is in use by a run that goes on" in first
    assert last == LAST_WORD
    assert not (folder / "0" / "metrics.csv").exists()
    assert described(folder / "1", "state") == "finished"


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Lightning ignores SIGINT once it has seen one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interruption_ends_the_sweep(ours: Family) -> None:
    result = ours.run(train, "-m", *CE, "seed=0,1", trouble("interrupted"), "hydra.sweep.dir=stopped")
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    assert not errors(result)
    assert described(ours.folder / "stopped" / "0", "state") == "interrupted"
    assert not (ours.folder / "stopped" / "1").exists()


def test_what_a_job_fails_of_is_in_its_run_json(ours: Family) -> None:
    result = ours.run(train, "-m", *CE, "seed=0,1", trouble("mistake"), "hydra.sweep.dir=failed")
    assert result.returncode == 1
    assert len(errors(result)) == 3
    for job in ("0", "1"):
        assert described(ours.folder / "failed" / job, "state") == "failed"
        assert described(ours.folder / "failed" / job, "error") == "this went wrong on purpose"


def test_a_bug_fails_its_job_alone(ours: Family) -> None:
    result = ours.run(train, "-m", *CE, "seed=0,1", trouble("bug"), "hydra.sweep.dir=bug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    for job in ("0", "1"):
        assert described(ours.folder / "bug" / job, "error") == "RuntimeError: this went wrong on purpose"


def test_the_folder_of_a_job_does_not_tell_whether_it_goes_on() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("train", return_hydra_config=True)
    assert "resume" in cfg.hydra.job.config.override_dirname.exclude_keys
