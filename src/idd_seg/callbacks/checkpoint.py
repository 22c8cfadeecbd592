"""Which checkpoints a run keeps."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

BEST, LAST = "best", "last"


def best_and_last(run_dir: str) -> ModelCheckpoint:
    """`checkpoints/best.ckpt` by mIoU on held-out images, and `checkpoints/last.ckpt`."""
    return ModelCheckpoint(
        dirpath=Path(run_dir) / "checkpoints",
        filename=BEST,
        monitor="val/mIoU",
        mode="max",
        save_last=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
