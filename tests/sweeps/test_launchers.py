"""Jobs that run at once, each with GPUs of its own, and jobs that go back to the queue."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import joblib
import pytest

from idd_seg.errors import ConfigError
from idd_seg.sweeps import launchers
from tests.helpers import clean_error
from tests.sweeps.run_app import search, states, sweep

JOBLIB, LOCAL, SLURM = (f"hydra/launcher={name}" for name in ("joblib", "submitit_local", "submitit_slurm"))


def seen(folder: Path) -> list[list[str]]:
    """Return for each job: devices, OpenMP threads, process, start and end."""
    return [path.read_text().split(" ") for path in sorted(folder.glob("sweep/*/devices"))]


def overlap(jobs: list[list[str]]) -> list[tuple[str, str]]:
    """Return the devices of each two jobs that ran at the same time."""
    spans = [(float(job[3]), float(job[4]), job[0]) for job in jobs]
    pairs = [(a, b) for i, a in enumerate(spans) for b in spans[i + 1 :]]
    return [(a[2], b[2]) for a, b in pairs if a[0] < b[1] and b[0] < a[1]]


@pytest.mark.parametrize("launcher", [JOBLIB, LOCAL])
def test_jobs_at_the_same_time_have_different_gpus(tmp_path: Path, launcher: str) -> None:
    result = sweep(tmp_path, launcher, "x=1,2,3", "mode=devices", CUDA_VISIBLE_DEVICES="5,7")
    assert result.returncode == 0, result.stderr
    jobs = seen(tmp_path)
    assert len(jobs) == 3
    assert {job[0] for job in jobs} == {"5", "7"}
    assert all(a != b for a, b in overlap(jobs))


def test_without_gpus_jobs_share_the_cores(tmp_path: Path) -> None:
    result = sweep(tmp_path, JOBLIB, "x=1,2", "mode=devices", "hydra.launcher.n_jobs=2", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stderr
    jobs = seen(tmp_path)
    assert {job[0] for job in jobs} == {""}
    assert {int(job[1]) for job in jobs} == {max(joblib.cpu_count() // 2, 1)}
    assert len({job[2] for job in jobs}) == 2


def test_a_job_of_several_gpus_takes_them_together(tmp_path: Path) -> None:
    options = ("x=1,2", "mode=devices", "+trainer.devices=2")
    assert sweep(tmp_path, JOBLIB, *options, CUDA_VISIBLE_DEVICES="0,1,2").returncode == 0
    assert {job[0] for job in seen(tmp_path)} == {"0,1"}


def test_a_search_has_as_many_trials_at_once_as_the_launcher_jobs(tmp_path: Path) -> None:
    options = ("x=interval(0,5)", "mode=devices", JOBLIB, "hydra.launcher.n_jobs=2")
    result = search(tmp_path, *options, trials=3, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stderr
    assert states(tmp_path) == ["complete"] * 3
    assert len(overlap(seen(tmp_path))) == 1


def test_a_stopped_job_goes_back_to_the_queue_and_on_in_its_folder(tmp_path: Path) -> None:
    result = sweep(tmp_path, LOCAL, "x=1,2", "mode=preempted")
    assert result.returncode == 0, result.stderr
    starts = [path.read_text().split() for path in sorted(tmp_path.glob("sweep/*/starts"))]
    assert starts == [["None", "auto"]] * 2
    logs = "".join(path.read_text() for path in tmp_path.glob("sweep/.submitit/*/*.err"))
    assert logs.count("this job is preempted") == 2


@pytest.mark.slow
def test_a_job_whose_process_dies_is_named_with_its_log_and_the_others_finish(tmp_path: Path) -> None:
    result = sweep(tmp_path, LOCAL, "x=1,2,3", "mode=kill_once")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (message,) = [line for line in result.stderr.splitlines() if line.startswith("error: job ")]
    assert "job 2 (x=3 mode=kill_once)" in message
    assert "sweep/.submitit" in message
    with (tmp_path / "sweep" / "jobs.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["finished", "finished", "ended"]


def test_jobs_that_do_not_fit_the_gpus_are_refused(tmp_path: Path) -> None:
    options = (JOBLIB, "x=1,2,3", "hydra.launcher.n_jobs=3")
    assert "at most 2 jobs fit" in clean_error(sweep(tmp_path, *options, CUDA_VISIBLE_DEVICES="5,7"))
    assert not list(tmp_path.glob("sweep/*/starts"))


def test_slurm_is_missed_before_any_job(tmp_path: Path) -> None:
    assert "there is no srun on this machine" in clean_error(sweep(tmp_path, SLURM, "x=1,2", PATH="/nowhere"))


@pytest.mark.parametrize(
    ("launcher", "module", "extra"),
    [
        (launchers.JoblibLauncher(2, 1), "hydra_plugins.hydra_joblib_launcher.joblib_launcher", "joblib"),
        (launchers.SubmititLocalLauncher(1), "idd_seg.sweeps.submitit_jobs", "slurm"),
        (launchers.SubmititSlurmLauncher(), "idd_seg.sweeps.submitit_jobs", "slurm"),
    ],
)
def test_what_is_not_installed_is_named(
    launcher: launchers.WrappedLauncher, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> ModuleType:
        assert name == module
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ConfigError, match=rf"pip install 'idd-seg\[{extra}\]'"):
        launcher.make({}, print)  # type: ignore[arg-type]
