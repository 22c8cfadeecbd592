"""Which of the processes that train together this one is, by what torchrun or srun say. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from idd_seg.errors import ConfigError


@dataclass(frozen=True)
class RankInfo:
    """One of the processes that train together.

    Attributes:
        rank, world: number of the process, 0 to world - 1, and of all.
        local_rank, local_world: the same among those of its machine.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world // self.local_world


# What the launchers call them: rank, world, local rank, local world. A batch script that does not use srun has
# SLURM_NTASKS too, so that it is the step's number which tells.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", None)


def rank_info_of(environment: Mapping[str, str] = os.environ) -> RankInfo | None:
    """Return the rank of this process if torchrun or srun started several; None if it stands alone.

    Raises:
        ConfigError: for values that can't be.
    """
    for names in (TORCHRUN, SRUN):
        if all(name is None or name in environment for name in names):
            rank_info = _read(environment, names)
            return rank_info if rank_info.world > 1 else None
    return None


def _read(environment: Mapping[str, str], names: tuple[str | None, ...]) -> RankInfo:
    try:
        rank, world, local_rank = (int(environment[str(name)]) for name in names[:3])
        # srun spreads its tasks evenly where it is told how many go to a node, as a DDP run must.
        local_world = int(environment[names[3]]) if names[3] else world // int(environment["SLURM_STEP_NUM_NODES"])
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"the launcher's environment can't be read: {error}; expected numbers in {names}") from error
    if not (0 <= rank < world and 0 <= local_rank < local_world <= world and world % local_world == 0):
        raise ConfigError(
            f"rank {rank} of {world}, {local_rank} of {local_world} on this machine: the launcher must start "
            "equally many processes on each machine (torchrun --nproc-per-node=N, srun --ntasks-per-node=N)"
        )
    return RankInfo(rank, world, local_rank, local_world)


def restarts(environment: Mapping[str, str] = os.environ) -> int:
    """Return how often SLURM has put this process's job back in the queue, for whatever reason; 0 outside of a job."""
    text = environment.get("SLURM_RESTART_COUNT", "0")
    return int(text) if text.isdecimal() else 0


PARENT = "IDD_SEG_SUPERVISOR"  # in the environment: the process with which this one ends

ADDRESS = "127.0.0.1"
PORT = "IDD_SEG_STORE"  # where a process finds the store, in its environment
