"""What SLURM says of its jobs, with accounting or without. Imports nothing heavy: jobs and their command use it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ASK = 60.0  # seconds that squeue, sacct and scontrol may take

# States in which a job may still come to an end of its own; all others are ends. PREEMPTED and NODE_FAIL are both: a
# job that is put back is PENDING a moment later.
OPEN = (
    *("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
)


@dataclass(frozen=True)
class JobState:
    """State and reason of a job, in SLURM's words.

    Attributes:
        name: `RUNNING`, `CANCELLED`, `TIMEOUT`, ...; `GONE` for a job of which SLURM knows nothing any more.
        reason: why it waits, or why it ended; empty where SLURM gives none.
    """

    name: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Tell whether the job has come to an end; it may yet be put back."""
        return self.name not in OPEN

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


GONE = JobState("GONE", "SLURM knows it no longer")


def states_of(jobs: Iterable[str]) -> dict[str, JobState]:
    """Return the states of jobs, `12` or `12_3`, by one call; an empty dictionary if SLURM does not answer.

    `squeue` answers without accounting. What has ended longer ago than the cluster's MinJobAge (300 s) is asked of
    `sacct`, which only clusters with accounting have.
    """
    wanted = list(jobs)
    arrays = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    listed = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "--format=%i|%T|%r")
    if listed is None:
        return {}
    found = parse(listed)
    if any(job not in found for job in wanted):
        words = ("--noheader", "--parsable2", "--allocations", f"--jobs={arrays}", "--format=JobID,State")
        found = {**parse(_ask("sacct", *words) or ""), **found}
    # Of an array that was cancelled before it began the accounting has one line for all its jobs.
    return {job: found.get(job) or found.get(job.partition("_")[0], GONE) for job in wanted}


def parse(text: str) -> dict[str, JobState]:
    """Read lines `job|state|reason`; sacct writes `CANCELLED by 1000`, and no reason."""
    found = {}
    for line in text.splitlines():
        job, _, rest = line.strip().partition("|")
        name, _, reason = rest.partition("|")
        if job and name:
            word, _, more = name.partition(" ")
            reason = "" if reason in ("None", "") else reason
            found[job] = JobState(word.rstrip("+"), reason or more)
    return found


def _ask(*command: str) -> str | None:
    """Return what a program of SLURM answers: empty for a job that it does not know, None if it can't answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK)
    except (OSError, subprocess.SubprocessError):
        return None
    return "" if "Invalid job id" in done.stderr else done.stdout if done.returncode == 0 else None


def being_preempted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process's job has been told to make room, and nobody has put it back yet.

    So it is in a partition with a time of grace. A run that saves and ends within it would end the job, which SLURM
    then puts back no more. At a requeue and a cancellation the job's state is another one already.
    """
    job = environment.get("SLURM_JOB_ID")
    shown = None if job is None else _ask("scontrol", "show", "job", job)
    return shown is not None and "JobState=RUNNING" in shown and re.search(r"PreemptTime=\d", shown) is not None


def put_back(environment: Mapping[str, str] = os.environ) -> None:
    """Put this process's job back in the queue; it ends by that.

    Raises:
        OSError, subprocess.SubprocessError: if SLURM refuses.
    """
    subprocess.run(["scontrol", "requeue", environment["SLURM_JOB_ID"]], check=True, timeout=ASK)
