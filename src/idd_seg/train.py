"""`python -m idd_seg.train`: train a student, with or without a teacher. `--help` lists groups and options."""

from __future__ import annotations

import sys
from contextlib import suppress

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import check_ranges
from idd_seg.distributed.environment import Place, place_of
from idd_seg.errors import ConfigError


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
        place = place_of()
        if place is not None:
            _refuse_sweep(place)
        if place is None:
            command_line.run(main, "train")
        elif place.rank == 0:
            _lead(place)
        else:
            from idd_seg.runs.run import follow

            follow(place)


def _refuse_sweep(place: Place) -> None:
    if not {"-m", "--multirun"} & set(sys.argv):
        return
    if place.rank:
        sys.exit(1)  # rank 0 says why
    raise ConfigError(
        "a sweep can't be started by torchrun or srun, whose processes belong to one run; with trainer=ddp each job "
        "of a sweep starts its own (docs/sweeps.md)"
    )


def _lead(place: Place) -> None:
    try:
        command_line.run(main, "train")
    except BaseException:
        from idd_seg.runs.run import dismiss

        with suppress(Exception):  # the others are gone, or never came; what has failed is said
            dismiss(place)
        raise


if __name__ == "__main__":
    start()
