"""The process group of a distributed run: joining, one configuration for all, and leaving."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

from idd_seg.distributed.environment import PARENT, RankInfo
from idd_seg.distributed.timeouts import LostRankError, within
from idd_seg.errors import ConfigError, Pruned, TimeUp, UserError, message_of

CONFIG = "idd_seg/config"
FIRST = "idd_seg/first"  # the process that failed first; the others lose their group by it
ERROR = "idd_seg/error/{}"  # a mistake of the user that process {} met
PRUNED = "idd_seg/pruned"
TIME_UP = "idd_seg/time_up"
ENDING = "idd_seg/ending"  # the launcher knows why, and ends all processes
# Until all processes have started; a rank 0 that refuses its command line never comes.
MEETING = timedelta(minutes=10)
# Until rank 0 has read its configuration and found, or trained, the teacher.
FOLLOW_TIMEOUT = timedelta(days=7)
LOOK = timedelta(seconds=30)  # of that, between two looks at whether rank 0 is still there


def backend() -> str:
    """Return how tensors travel: `nccl` between GPUs, else `gloo`."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def meet(rank_info: RankInfo) -> Any:
    """Return the store of the processes that torchrun or srun started."""
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = _slurm_address()
    meeting = rendezvous("env://", rank=rank_info.rank, world_size=rank_info.world, timeout=MEETING)
    store, _, _ = next(iter(meeting))
    return store


def config_of(store: Any) -> str:
    """Wait until rank 0 has given its configuration, and return it.

    Raises:
        LostRankError: if the store does not answer for as long as the processes may take to meet.
        RuntimeError: if rank 0 has ended, or takes longer than `FOLLOW_TIMEOUT`.
    """
    limit = time.monotonic() + FOLLOW_TIMEOUT.total_seconds()
    while time.monotonic() < limit:
        found: list[bool] = []

        def look(found: list[bool] = found) -> None:
            try:
                store.wait([CONFIG], LOOK)
                found.append(True)
            except RuntimeError:
                found.append(bool(store.check([CONFIG])))

        if not within(MEETING.total_seconds(), look):
            raise LostRankError("rank 0 does not answer any more: its machine, or the network to it, is gone")
        if found[0]:
            return str(store.get(CONFIG).decode())
    raise LostRankError(f"rank 0 has given no configuration within {FOLLOW_TIMEOUT.days} days")


def _slurm_address() -> tuple[str, str]:
    """Return the first machine of a SLURM job, and a port that follows from the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST")
    if nodes is None:
        raise ConfigError("srun has not set SLURM_STEP_NODELIST; set MASTER_ADDR and MASTER_PORT")
    try:
        found = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=60, check=True
        )
        first = found.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        # node[07-09,12] -> node07
        first = re.sub(r"\[(\w+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
    return first, str(15000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10000)


@contextmanager
def joined(store: Any, rank_info: RankInfo, minutes: float) -> Iterator[None]:
    """Make one group of all processes; leave it at the end.

    Args:
        minutes: after which a process that waits for the others gives up.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(rank_info.local_rank)
    store = PrefixStore("idd_seg", store)
    timeout = timedelta(minutes=minutes)
    dist.init_process_group(backend(), store=store, rank=rank_info.rank, world_size=rank_info.world, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def report(store: Any, rank_info: RankInfo, error: Exception) -> None:
    """Tell the launcher of ours, if one supervises, why this process fails.

    torchrun and srun do not ask; the store may have gone with the process that failed first, or with the network to it.
    """
    if PARENT not in os.environ:
        return
    if store.add(f"{FIRST}_count", 1) == 1:
        store.set(FIRST, str(rank_info.rank))
    if isinstance(error, Pruned):
        store.set(PRUNED, str(error))
    elif isinstance(error, TimeUp):
        store.set(TIME_UP, str(error))
    elif isinstance(error, UserError | OSError):
        store.set(ERROR.format(rank_info.rank), message_of(error))


class Joined(ClusterEnvironment):
    """Tells Lightning that the processes are there already, and which this one is."""

    def __init__(self, rank_info: RankInfo) -> None:
        super().__init__()
        self.rank_info = rank_info

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        return int(os.environ.get("MASTER_PORT", "0"))

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.rank_info.world

    def set_world_size(self, size: int) -> None:
        """Do nothing: the group stands."""

    def global_rank(self) -> int:
        return self.rank_info.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the group stands."""

    def local_rank(self) -> int:
        return self.rank_info.local_rank

    def node_rank(self) -> int:
        return self.rank_info.rank // self.rank_info.local_world
