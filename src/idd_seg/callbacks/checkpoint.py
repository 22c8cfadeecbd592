"""Which checkpoints a run keeps, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

BEST, LAST = "best", "last"


def best(run_dir: str) -> ModelCheckpoint:
    """`checkpoints/best.ckpt`, by mIoU on held-out images."""
    return ModelCheckpoint(
        dirpath=Path(run_dir) / "checkpoints",
        filename=BEST,
        monitor="val/mIoU",
        mode="max",
        save_on_train_epoch_end=False,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


class Last(Checkpoint):
    """`checkpoints/last.ckpt`: the state from which a run goes on, bit by bit.

    Written every so many optimizer steps, after each validation, and where a run is asked to stop; never between the
    batches of one optimizer step, whose gradients no checkpoint holds.

    Args:
        every_n_steps: optimizer steps between two checkpoints, the most that a run can lose.
    """

    def __init__(self, run_dir: str, every_n_steps: int) -> None:
        if not isinstance(every_n_steps, int) or isinstance(every_n_steps, bool) or every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a whole number >= 1, got {every_n_steps!r}")
        self.path = Path(run_dir) / "checkpoints" / f"{LAST}.ckpt"
        self.every = every_n_steps
        self.saved = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved = trainer.global_step  # what it begins with needs no new file

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Where a validation follows it is saved after that: a run that goes on does not validate first.
        validates = (batch_idx + 1) % int(trainer.val_check_batch or 1) == 0
        if trainer.global_step % self.every == 0 and not validates and _between_steps(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # It is raised between two batches, by all processes; any other exception may leave half a step.
        if isinstance(exception, SIGTERMException) and not trainer.validating and _between_steps(trainer):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if self.saved != trainer.global_step:
            self.saved = trainer.global_step
            trainer.save_checkpoint(self.path)


def _between_steps(trainer: L.Trainer) -> bool:
    """Tell whether the last batch completed an optimizer step."""
    batches: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
    return batches % trainer.accumulate_grad_batches == 0


class WholeFiles(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill leaves the checkpoint that was there.

    Lightning's own goes by the folder of temporary files, and from another filesystem copies over the target.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.tmp")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except RuntimeError as error:
            # PyTorch's writer says that its file could not be written, but not why.
            raise OSError(f"'{target}' can't be written, is the disk full? ({str(error).splitlines()[0]})") from error
        finally:
            draft.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values alone: a checkpoint may be a stranger's."""
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        return content
