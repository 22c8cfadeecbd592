"""What is said of jobs that end well, fail, or are lost."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus

from idd_seg.errors import JobFailed, Pruned
from idd_seg.sweeps import submitit_results
from idd_seg.sweeps.slurm_queue import JobState
from idd_seg.sweeps.submitit_results import Task, conclude, wait_for


@dataclass
class Job:
    """What a handle of submitit has."""

    job_id: str
    folder: Path

    @property
    def paths(self) -> SimpleNamespace:
        names = {"result_pickle": "result.pkl", "stderr": "log.err", "stdout": "log.out"}
        return SimpleNamespace(**{name: self.folder / file for name, file in names.items()})


def task(number: int, folder: Path, result: object = None, log: str = "") -> Task:
    own = folder / str(number)
    own.mkdir()
    if result is not None:
        (own / "result.pkl").write_bytes(pickle.dumps(result))
    (own / "log.err").write_text(log)
    return Task(number, (f"seed={number}",), Job(f"12_{number}", own))


def returned(status: JobStatus, value: object) -> tuple[str, JobReturn]:
    return "success", JobReturn(status=status, _return_value=value)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "LONGEST", "LATE", "PUT_BACK"):
        monkeypatch.setattr(submitit_results, name, 0.01)


def test_each_job_has_a_state_a_reason_and_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = "Traceback\n  File ...\nRuntimeError: a bug\n"
    tasks = [
        task(0, tmp_path, returned(JobStatus.COMPLETED, 0.5)),
        task(1, tmp_path, returned(JobStatus.FAILED, JobFailed("job 1: no such file"))),
        task(2, tmp_path, ("error", trace)),
        task(3, tmp_path, log="step 1\nstep 2\n"),
        task(4, tmp_path, returned(JobStatus.FAILED, Pruned("worse than the median"))),
    ]

    def look(tasks: Sequence[Task]) -> Mapping[str, JobState]:
        return {task.job.job_id: JobState("CANCELLED", "by 1000") for task in tasks}

    results = conclude(wait_for(tasks, look), tmp_path)
    with (tmp_path / "jobs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished", "failed", "failed", "cancelled", "pruned"]
    assert rows[1]["reason"] == "job 1: no such file"
    assert rows[2]["reason"] == "RuntimeError: a bug"
    assert rows[3]["reason"] == "by 1000; its log ends: step 2"
    assert all(Path(row["log"]).is_file() for row in rows)
    assert results[0].return_value == 0.5
    with pytest.raises(JobFailed, match=r"job 3 \(seed=3\): cancelled"):
        _ = results[3].return_value
    said = capsys.readouterr()
    assert [line.split(" (")[0] for line in said.err.splitlines() if line.startswith("error")] == [
        "error: job 1",
        "error: job 2",
        "error: job 3",
    ]
    assert "2 of 5 jobs have ended well" in said.out


def test_a_job_that_is_put_back_is_waited_for(tmp_path: Path) -> None:
    one = task(0, tmp_path)
    answers = iter(["RUNNING", "PREEMPTED", "PENDING", "RUNNING"])

    def look(tasks: Sequence[Task]) -> Mapping[str, JobState]:
        state = next(answers, None)
        if state is None:
            one.job.paths.result_pickle.write_bytes(pickle.dumps(returned(JobStatus.COMPLETED, 1.0)))
        return {"12_0": JobState(state or "COMPLETED")}

    (ended,) = wait_for([one], look)
    assert ended.state == "finished"


def test_a_result_that_was_cut_off_is_a_job_that_failed(tmp_path: Path) -> None:
    one = task(0, tmp_path, returned(JobStatus.COMPLETED, 1.0))
    path = one.job.paths.result_pickle
    path.write_bytes(path.read_bytes()[:-5])
    (ended,) = wait_for([one], lambda _: {})
    assert (ended.state, "can't be read" in ended.reason) == ("failed", True)
