"""`python -m idd_seg.train`: train a student, with or without a teacher. `--help` lists groups and options."""

from __future__ import annotations

from omegaconf import DictConfig

from idd_seg import cli
from idd_seg.place import Place


def main(cfg: DictConfig) -> float:
    """Train as `cfg` says; return the best mIoU on held-out images, which sweepers maximise."""
    from idd_seg.job import run  # PyTorch is imported here, so that --help need not wait for it

    return run(cfg)


def follow(place: Place) -> None:
    """Take part in the run of rank 0, where torchrun or srun started several processes."""
    from idd_seg.job import follow

    follow(place)


if __name__ == "__main__":
    cli.run(main, "train", follow)
