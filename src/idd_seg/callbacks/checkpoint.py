"""Which checkpoints a run keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

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


class WholeFiles(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill leaves the checkpoint that was there.

    Lightning's own goes by the folder of temporary files, and from another filesystem copies over the target.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.tmp")
        try:
            torch.save(checkpoint, draft)
            draft.replace(target)
        except RuntimeError as error:
            # PyTorch's writer says that its file could not be written, but not why.
            raise OSError(f"'{target}' can't be written, is the disk full? ({str(error).splitlines()[0]})") from error
        finally:
            draft.unlink(missing_ok=True)
