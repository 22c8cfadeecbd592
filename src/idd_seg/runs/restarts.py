"""A job that SLURM puts back in the queue again and again, and that comes no further."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from idd_seg.distributed.environment import restarts
from idd_seg.errors import UserError
from idd_seg.runs.provenance import write_json

FILE = "restarts.json"
JOB = "SLURM_JOB_ID"


def refuse_without_progress(
    folder: Path, checkpoints: Iterable[Path], most: int, environment: Mapping[str, str] = os.environ
) -> None:
    """Note in a run's folder how far it had come when its job came back; refuse a job that comes no further.

    Args:
        checkpoints: those of the run, and of the teacher that it trains first.
        most: how often a job may come back to the same optimizer step.

    Raises:
        UserError: if it has come back more often. The job then fails, and is put back no more.
    """
    job, path = environment.get(JOB), folder / FILE
    if job is None:
        return
    steps = {str(found): step_of(found) for found in checkpoints}
    before = _read(path)
    same = restarts(environment) > 0 and before.get("job") == job and before.get("steps") == steps
    idle = int(str(before.get("idle", 0))) + 1 if same else 0
    write_json(path, {"job": job, "restarts": restarts(environment), "steps": steps, "idle": idle})
    if idle > most:
        reached = max(step for step in [*steps.values(), -1] if step is not None)
        where = "without any checkpoint" if reached < 0 else f"at step {reached} of its last checkpoint"
        raise UserError(
            f"SLURM has put job {job} back {idle} times, and each time the run of '{folder}' began {where}, as before: "
            "a job's time, or the notice before its end, is too short to save. Give it more of them (--time, --signal; "
            "hydra.launcher.timeout_min and signal_delay_s), save more often (callbacks.last.every_n_steps), or allow "
            "more (max_idle_restarts); a new job with resume=auto goes on"
        )


def step_of(checkpoint: Path) -> int | None:
    """Return the optimizer step of a checkpoint; None without one that can be read."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # whatever a damaged file raises; whoever goes on from it says what is wrong
        return None


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
