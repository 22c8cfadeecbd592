"""Which GPUs a job of a sweep sees, where several jobs run on one machine at once."""

from __future__ import annotations

import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from idd_seg.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"

# What this process holds. CUDA reads the variable once, when it starts, so that a process that runs several jobs keeps
# its GPUs until it ends; the system frees the locks of a process that is killed.
_held: list[FileLock] = []


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all, by their UUID."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip() not in ("", "-1")]
    return list(_uuids().values())


def _uuids() -> dict[str, str]:
    """Return the UUIDs of the machine's GPUs by their indices."""
    # PyTorch would have to be loaded, and could start CUDA with the variable as it is.
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [line.split(",") for line in answer.splitlines() if "," in line]
    return {index.strip(): uuid.strip() for index, uuid in rows}


def jobs_at_once(n_jobs: int | None, gpus_per_job: int, devices: Sequence[str]) -> int:
    """Return how many jobs run at once: one on each GPU; without a GPU two.

    Raises:
        ConfigError: if the jobs asked for do not fit the GPUs.
    """
    for name, value in (("n_jobs", n_jobs), ("gpus_per_job", gpus_per_job)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"hydra.launcher.{name} must be a whole number >= 1, got '{value}'")
    if not devices:
        return n_jobs or 2
    room = len(devices) // gpus_per_job
    if room == 0:
        raise ConfigError(f"hydra.launcher.gpus_per_job={gpus_per_job}, but this machine shows {len(devices)} GPU(s)")
    if n_jobs is not None and n_jobs > room:
        raise ConfigError(
            f"hydra.launcher.n_jobs={n_jobs} with {gpus_per_job} GPU(s) for each job, but this machine shows "
            f"{len(devices)} GPU(s); at most {room} jobs fit (hydra.launcher.n_jobs, hydra.launcher.gpus_per_job)"
        )
    return n_jobs or room


def lock_folder() -> Path:
    """Return where the GPUs' locks lie: one folder a user and machine, so that sweeps leave each other's GPUs alone."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"idd-seg-gpus-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def take(devices: Sequence[str], count: int, folder: Path) -> tuple[list[str], list[FileLock]] | None:
    """Take `count` free GPUs, all or none: two processes that each hold half would wait for ever."""
    names, locks = [], []
    # Another sweep may call the same GPU by another name.
    uuids = _uuids() if any(device.isdigit() for device in devices) else {}
    for device in devices:
        lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', uuids.get(device, device))}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        names.append(device)
        locks.append(lock)
        if len(names) == count:
            return names, locks
    for lock in locks:
        lock.release()
    return None


def keep_devices(devices: Sequence[str], count: int) -> None:
    """Let this process see `count` GPUs that no other holds, until it ends; wait where none is free."""
    if _held or not devices:
        return
    told = False
    while (found := take(devices, count, lock_folder())) is None:
        if not told:
            print(f"waiting for {count} free GPU(s) of {', '.join(devices)}", flush=True)
            told = True
        time.sleep(random.uniform(0.5, 1.5))
    names, locks = found
    _held.extend(locks)
    os.environ[VISIBLE] = ",".join(names)


@dataclass(frozen=True)
class OnOwnDevices:
    """A task that first takes GPUs for its process alone.

    Args:
        task: what Hydra runs for each job.
        devices: the GPUs to choose from; empty on a machine without.
        count: GPUs of a job.
    """

    task: Callable[[Any], Any]
    devices: tuple[str, ...]
    count: int

    def __call__(self, cfg: Any) -> Any:
        keep_devices(self.devices, self.count)
        return self.task(cfg)
