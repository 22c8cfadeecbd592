"""What SLURM says of its jobs, read with stand-ins for its programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from idd_seg.sweeps.slurm_queue import GONE, JobState, being_preempted, parse, states_of


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def test_lines_of_squeue_and_sacct() -> None:
    assert parse("12_0|RUNNING|None\n12_1|CANCELLED|None\n12_2|FAILED|NonZeroExitCode\n13|PENDING|BeginTime\n") == {
        "12_0": JobState("RUNNING"),
        "12_1": JobState("CANCELLED"),
        "12_2": JobState("FAILED", "NonZeroExitCode"),
        "13": JobState("PENDING", "BeginTime"),
    }
    assert parse("12_1|CANCELLED by 1000\n\n") == {"12_1": JobState("CANCELLED", "by 1000")}


@pytest.mark.parametrize(
    ("name", "ended"), [("PENDING", False), ("COMPLETING", False), ("TIMEOUT", True), ("GONE", True)]
)
def test_which_states_are_an_end(name: str, ended: bool) -> None:
    assert JobState(name).ended == ended


def test_a_job_that_the_queue_has_forgotten_is_asked_of_the_accounting(programs: Path) -> None:
    program(programs, "squeue", "echo '12_0|RUNNING|None'")
    program(programs, "sacct", "printf '12_0|PENDING\\n12_1|TIMEOUT\\n'")
    assert states_of(["12_0", "12_1"]) == {"12_0": JobState("RUNNING"), "12_1": JobState("TIMEOUT")}


def test_without_accounting_such_a_job_is_gone(programs: Path) -> None:
    program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    program(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert states_of(["12"]) == {"12": GONE}


def test_a_controller_that_does_not_answer_says_nothing_of_the_jobs(programs: Path) -> None:
    program(programs, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert states_of(["12"]) == {}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("JobState=RUNNING Reason=None PreemptTime=2026-01-02T03:04:05", True),
        ("JobState=RUNNING Reason=None PreemptTime=None", False),  # somebody has signalled it by hand
        ("JobState=CANCELLED Reason=None PreemptTime=2026-01-02T03:04:05", False),
    ],
)
def test_a_job_in_its_time_of_grace(shown: str, expected: bool, programs: Path) -> None:
    program(programs, "scontrol", f"echo '{shown}'")
    assert being_preempted({"SLURM_JOB_ID": "12"}) == expected
    assert not being_preempted({})
