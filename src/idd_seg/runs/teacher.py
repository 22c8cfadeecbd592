"""A teacher that is trained once, and kept for the runs that need it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.preflight import Checked, TeacherRun
from idd_seg.config.teacher_plan import kept_checkpoint, kept_folder, named_checkpoint, teacher_config


def checkpoint_of(cfg: DictConfig, teacher_run: TeacherRun | None, train: Callable[[DictConfig, Checked], Any]) -> str:
    """Return the path of the teacher's checkpoint; with `teacher.checkpoint=auto` train it if it is not kept yet.

    Args:
        teacher_run: from the look at the configuration; None if there is a file.
        train: trains a configuration that has been looked at.
    """
    named = named_checkpoint(cfg)
    if named is not None:
        return named
    kept = kept_folder(teacher_config(cfg) if teacher_run is None else teacher_run.cfg)
    if teacher_run is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Runs that start together share one teacher: the first trains it, the others wait.
        with FileLock(f"{kept}.lock"):
            if not kept_checkpoint(kept).is_file():
                print(f"teacher: there is none yet for this configuration; training it once, to be kept in {kept}")
                _train(teacher_run, kept, train)
                return str(kept_checkpoint(kept))
    print(f"teacher: taken from {kept}")
    return str(kept_checkpoint(kept))


def _train(teacher_run: TeacherRun, kept: Path, train: Callable[[DictConfig, Checked], Any]) -> None:
    own = teacher_run.cfg
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".training-") as draft:
        own.run_dir = draft
        train(own, teacher_run.checked)
        # TemporaryDirectory removes what is left of it; the finished run moves out whole.
        Path(draft).rename(kept)
        own.run_dir = str(kept)
        OmegaConf.save(own, kept / "config.yaml", resolve=True)
        Path(draft).mkdir()
