"""`python -m idd_seg.train`: train a student, with or without a teacher. `--help` lists groups and options.

In a program the module is called: `idd_seg.train(data="shapes")`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import check_ranges
from idd_seg.distributed.environment import RankInfo, rank_info_of
from idd_seg.errors import ConfigError

if TYPE_CHECKING:
    from idd_seg.api.trained import Trained


def main(cfg: DictConfig) -> float:
    """Train as `cfg` says; return the best mIoU on held-out images, which sweepers maximise."""
    check_ranges(cfg)
    from idd_seg.runs.run import (
        run,  # PyTorch is imported here, so that --help, and what is wrong by itself, need not wait
    )

    return run(cfg)


def start() -> None:
    """Read the command line and train; of several processes of torchrun or srun rank 0 does, and leads the others."""
    with command_line.told("train"):
        rank_info = rank_info_of()
        if rank_info is not None:
            _refuse_sweep(rank_info)
        if rank_info is None:
            command_line.run(main, "train")
        elif rank_info.rank == 0:
            _lead(rank_info)
        else:
            from idd_seg.runs.run import follow

            follow(rank_info)


def _refuse_sweep(rank_info: RankInfo) -> None:
    if not {"-m", "--multirun"} & set(sys.argv):
        return
    if rank_info.rank:
        sys.exit(1)  # rank 0 says why
    raise ConfigError(
        "a sweep can't be started by torchrun or srun, whose processes belong to one run; with trainer=ddp each job "
        "of a sweep starts its own (docs/sweeps.md)"
    )


def _lead(rank_info: RankInfo) -> None:
    try:
        command_line.run(main, "train")
    except BaseException:
        from idd_seg.runs.run import dismiss

        with suppress(Exception):  # the others are gone, or never came; what has failed is said
            dismiss(rank_info)
        raise


class _Callable(ModuleType):
    """A module of the command line that a program calls by the same name."""

    def __call__(self, *texts: str, **options: Any) -> Trained:
        """Train a student, as `idd_seg.api.training.train` says."""
        from idd_seg.api.training import train

        return train(*texts, **options)


if __name__ == "__main__":
    start()
else:
    sys.modules[__name__].__class__ = _Callable
