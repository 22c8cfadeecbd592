"""A teacher that is trained once, and kept for the runs that need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.preflight import Checked, TeacherRun
from idd_seg.config.teacher_plan import kept_checkpoint
from idd_seg.errors import RunFolderError

Train = Callable[[DictConfig, Checked], Any]


def trained(teacher_run: TeacherRun, train: Train) -> str:
    """Return the path of a teacher's checkpoint, after training it if no other run has done so meanwhile.

    A training that was stopped resumes with the next run that needs the teacher.

    Args:
        train: trains a configuration that has been looked at, in its `run_dir`.
    """
    kept = teacher_run.kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Runs that start together share one teacher: the first trains it, the others wait.
    with FileLock(f"{kept}.lock"):
        if kept_checkpoint(kept).is_file():
            print(f"teacher: taken from {kept}")
        else:
            print(f"teacher: there is none yet for this configuration; training it once, to be kept in {kept}")
            _train(teacher_run, kept, train)
    return str(kept_checkpoint(kept))


def draft_of(teacher_run: TeacherRun) -> Path:
    """Return the folder in which a teacher is trained, until it is kept."""
    return teacher_run.kept.with_name(f".training-{teacher_run.kept.name}")


def _train(teacher_run: TeacherRun, kept: Path, train: Train) -> None:
    own, draft = teacher_run.cfg, draft_of(teacher_run)
    own.run_dir, own.resume = str(draft), "auto"
    try:
        train(own, teacher_run.checked)
    except RunFolderError:  # what was begun there was begun otherwise: with another interval of validations, say
        own.resume = "never"
        train(own, teacher_run.checked)
    own.run_dir, own.resume = str(kept), None
    OmegaConf.save(own, draft / "config.yaml", resolve=True)
    draft.rename(kept)
    print(f"teacher: kept in {kept}, which was {draft.name}")
