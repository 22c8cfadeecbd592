"""A job that SLURM puts back: counted while it comes no further, and stopped with one message in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idd_seg.errors import UserError
from idd_seg.runs.restarts import refuse_without_progress, step_of


def job(restarts: int, number: str = "12") -> dict[str, str]:
    return {"SLURM_JOB_ID": number, **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {})}


def save(path: Path, step: int) -> None:
    torch.save({"global_step": step, "state_dict": {"a": torch.ones(3)}}, path)


def test_a_job_that_never_saves_is_stopped(tmp_path: Path) -> None:
    for restart in range(3):
        refuse_without_progress(tmp_path, [tmp_path / "last.ckpt"], 2, job(restart))
    with pytest.raises(UserError, match=r"put job 12 back 3 times.*without any checkpoint.*max_idle_restarts"):
        refuse_without_progress(tmp_path, [tmp_path / "last.ckpt"], 2, job(3))


def test_a_job_that_saves_the_same_step_again_is_stopped(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    for restart in range(3):
        save(last, 7)
        refuse_without_progress(tmp_path, [last], 2, job(restart))
    with pytest.raises(UserError, match=r"at step 7 of its last checkpoint"):
        refuse_without_progress(tmp_path, [last], 2, job(3))


def test_each_new_checkpoint_counts_from_0_again(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    for restart in range(20):
        save(last, restart // 3)
        refuse_without_progress(tmp_path, [last], 2, job(restart))


def test_a_teacher_that_is_trained_first_is_progress(tmp_path: Path) -> None:
    own, teacher = tmp_path / "last.ckpt", tmp_path / "teacher.ckpt"
    for restart in range(10):
        save(teacher, restart)
        refuse_without_progress(tmp_path, [own, teacher], 2, job(restart))


def test_another_job_begins_to_count(tmp_path: Path) -> None:
    for restart in range(3):
        refuse_without_progress(tmp_path, [], 2, job(restart))
    refuse_without_progress(tmp_path, [], 2, job(0, "13"))
    refuse_without_progress(tmp_path, [], 2, job(1, "13"))


def test_outside_of_slurm_nothing_is_counted(tmp_path: Path) -> None:
    for _ in range(9):
        refuse_without_progress(tmp_path, [], 0, {})
    assert not list(tmp_path.iterdir())


def test_what_is_damaged_does_not_count_as_a_step(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"PK\x03\x04")
    assert step_of(tmp_path / "last.ckpt") is None
    (tmp_path / "restarts.json").write_text("{")
    refuse_without_progress(tmp_path, [tmp_path / "last.ckpt"], 0, job(1))
