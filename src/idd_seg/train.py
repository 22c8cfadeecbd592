"""`python -m idd_seg.train`: train a student, with or without a teacher. `--help` lists groups and options."""

from __future__ import annotations

from omegaconf import DictConfig

from idd_seg import cli


def main(cfg: DictConfig) -> float:
    """Train as `cfg` says; return the best mIoU on held-out images, which sweepers maximise."""
    from idd_seg.training import train  # PyTorch is imported here, so that --help need not wait for it

    return train(cfg)


if __name__ == "__main__":
    cli.run(main, "train")
