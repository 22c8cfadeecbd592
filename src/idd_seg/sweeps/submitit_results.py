"""What became of the jobs that submitit runs: each is waited for, and none that is lost stops the others."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console
from rich.table import Table
from submitit.core.utils import pickle_load

from idd_seg.errors import JobFailed, Pruned, printable
from idd_seg.ops.private_api import job_result
from idd_seg.sweeps.slurm_queue import JobState, states_of

FILE = "jobs.csv"
FIRST, LONGEST = 2.0, 30.0  # seconds between two questions to the queue, at first and in the end
# Seconds that a job which has ended may take for its result to be seen, on a slow disk; or to be put back.
LATE, PUT_BACK = 20.0, 120.0
PASSING = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")

UNKNOWN = JobState("RUNNING", "the queue does not answer")


@dataclass(frozen=True)
class Task:
    """A job of the sweep: its number, its options, and submitit's handle."""

    number: int
    overrides: tuple[str, ...]
    job: Any

    @property
    def log(self) -> Path:
        """Return what the job has written to its error stream, or its output where there is none."""
        paths = self.job.paths
        return Path(paths.stderr if paths.stderr.is_file() else paths.stdout)


Look = Callable[[Sequence[Task]], Mapping[str, JobState]]


@dataclass(frozen=True)
class Ended:
    """A job that has ended: `finished`, `failed`, `pruned`, or how SLURM calls the end of one without a result."""

    task: Task
    result: JobReturn
    state: str
    reason: str = ""

    @property
    def row(self) -> list[str]:
        """Return number, options, job, state, reason and log, as written and shown."""
        task = self.task
        words = [str(task.number), " ".join(task.overrides), task.job.job_id, self.state, self.reason, str(task.log)]
        return [printable(word) for word in words]


def local_states(tasks: Sequence[Task]) -> dict[str, JobState]:
    """Return the states of jobs that are processes of this machine."""
    running = {task.job.job_id: task.job.get_info()["jobState"] == "RUNNING" for task in tasks}
    return {job: JobState("RUNNING" if runs else "ENDED") for job, runs in running.items()}


def slurm_states(tasks: Sequence[Task]) -> dict[str, JobState]:
    """Return the states of jobs of SLURM; empty if it does not answer."""
    return states_of([task.job.job_id for task in tasks])


def wait_for(tasks: Sequence[Task], look: Look) -> list[Ended]:
    """Return what became of the jobs, in their order, when the last has ended; failures are told as they come."""
    waiting, ended, seen = {task.number: task for task in tasks}, {}, dict[int, float]()
    asked, pause = time.monotonic(), FIRST
    while waiting:
        for number in [n for n, task in waiting.items() if _has_result(task)]:
            ended[number] = _told(_read(waiting.pop(number)))
        if waiting and time.monotonic() >= asked + pause:
            states = look(list(waiting.values()))
            asked, pause = time.monotonic(), min(pause * 1.5, LONGEST)
            for number, task in list(waiting.items()):
                state = states.get(task.job.job_id, UNKNOWN)
                if _is_lost(state, number, seen) and not _has_result(task):
                    ended[number] = _told(_lost(waiting.pop(number), state))
        if waiting:
            time.sleep(min(1.0, pause))
    return [ended[task.number] for task in tasks]


def _is_lost(state: JobState, number: int, seen: dict[int, float]) -> bool:
    """Tell whether a job has been at its end for so long that neither a result nor a return to the queue will come."""
    if not state.ended:
        seen.pop(number, None)
        return False
    first = seen.setdefault(number, time.monotonic())
    return time.monotonic() >= first + (PUT_BACK if state.name in PASSING else LATE)


def _has_result(task: Task) -> bool:
    path = task.job.paths.result_pickle
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - a listing is fresh where a shared disk caches names
    except OSError:
        return False


def _read(task: Task) -> Ended:
    """Read what a job has returned; what it raised comes as text."""
    try:
        outcome, value = pickle_load(task.job.paths.result_pickle)
    except Exception as error:  # whatever a file that was cut off raises
        return _failed(task, "failed", f"its result can't be read ({type(error).__name__}: {error})")
    if outcome == "error":
        return _failed(task, "failed", _last_line(str(value)))
    found = job_result(value)
    if isinstance(found, Pruned):
        return Ended(task, value, "pruned", _first_line(str(found)))
    if value.status != JobStatus.COMPLETED:
        return Ended(task, value, "failed", _first_line(str(found)) or type(found).__name__)
    return Ended(task, value, "finished")


def _lost(task: Task, state: JobState) -> Ended:
    """Describe a job that has left no result, with the last that it said."""
    said = _said(task.log)
    words = "; ".join(word for word in (state.reason, said and f"its log ends: {said}") if word)
    return _failed(task, state.name.lower(), words or "it left no result")


def _failed(task: Task, state: str, reason: str) -> Ended:
    text = f"job {task.number} ({' '.join(task.overrides)}): {state}: {reason}"
    value = JobReturn(overrides=task.overrides, status=JobStatus.FAILED, _return_value=JobFailed(text))
    return Ended(task, value, state, reason)


def _said(log: Path) -> str:
    """Return the last message of a log, or its last line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:300]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _told(ended: Ended) -> Ended:
    if ended.state not in ("finished", "pruned"):
        number, options, job, state, reason, log = ended.row
        print(f"error: job {number} ({options}), {job}: {state}: {reason} (log: '{log}')", file=sys.stderr, flush=True)
    return ended


def conclude(ended: Sequence[Ended], folder: Path) -> list[JobReturn]:
    """Write each job's state, reason and log to `jobs.csv`, show them where not all went well, and return results."""
    heads = ["job", "options", "queued as", "state", "reason", "log"]
    path = folder / FILE
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*([heads] if new else []), *(job.row for job in ended)])
    well = [job for job in ended if job.state in ("finished", "pruned")]
    if len(well) < len(ended):
        table = Table(*heads)
        for job in ended:
            table.add_row(*job.row)
        Console().print(table)
    print(f"{len(well)} of {len(ended)} jobs have ended well ({path})")
    return [job.result for job in ended]
