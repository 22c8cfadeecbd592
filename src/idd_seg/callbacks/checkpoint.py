"""Which checkpoints a run keeps, and when they are written; what can't be written does not end the run."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from idd_seg.callbacks.atomic_checkpoint_io import AtomicCheckpointIO
from idd_seg.callbacks.resume_metrics import ROW, unlogged_row
from idd_seg.distillation.module import Distiller
from idd_seg.errors import CheckpointError
from idd_seg.ops.private_api import batches_done, note_saved
from idd_seg.ops.validation import require_whole

__all__ = ["BEST", "LAST", "AtomicCheckpointIO", "Best", "Last", "best", "save_finally"]

BEST, LAST = "best", "last"


def save(trainer: L.Trainer, path: Path) -> bool:
    """Write a checkpoint, and tell all processes alike whether it could be written; a warning says why not."""
    written = True
    try:
        trainer.save_checkpoint(path)
    except OSError as error:
        written = False
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other processes wait
        warnings.warn(
            f"'{path}' can't be written at step {trainer.global_step} ({_reason(error)}). What was written there "
            "before stays; it is tried again at the next checkpoint. Make room, or let the run write there again: "
            "until then a stop costs what was trained since",
            stacklevel=2,
        )
    return bool(trainer.strategy.broadcast(written))


def save_finally(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint of the end of a training.

    Raises:
        CheckpointError: if it can't be written.
    """
    try:
        trainer.save_checkpoint(path)
    except OSError as error:
        raise CheckpointError(
            f"'{path}', a checkpoint of the end of the training, can't be written ({_reason(error)}). Make room, or "
            "let the run write there again; the same command with resume=auto then goes on from the last whole one"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class Best(ModelCheckpoint):
    """Keeps the checkpoint of the best validation; one that can't be written does not count as validated."""

    written = True

    @property
    def state_key(self) -> str:
        # Under the name that checkpoints of the first version have.
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before, self.written = copy.deepcopy(self.state_dict()), True
        super().on_validation_end(trainer, pl_module)
        if not self.written:
            self.load_state_dict(before)
            if isinstance(pl_module, Distiller):
                pl_module.validated.pop(trainer.global_step, None)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        self.written = save(trainer, Path(filepath))
        if self.written:
            note_saved(self, trainer.global_step, filepath)
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)


def best(run_dir: str) -> ModelCheckpoint:
    """`checkpoints/best.ckpt`, by mIoU on held-out images."""
    return Best(
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
        require_whole("every_n_steps", every_n_steps, 1)
        self.path = Path(run_dir) / "checkpoints" / f"{LAST}.ckpt"
        self.every = every_n_steps
        self.saved = -1
        self.row: dict[str, float] | None = None  # of the step that is being saved

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved = trainer.global_step  # what it begins with needs no new file

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Where a validation follows it is saved after that: a run that goes on does not validate first.
        validates = (batch_idx + 1) % int(trainer.val_check_batch or 1) == 0
        if trainer.global_step % self.every == 0 and not validates and _between_steps(trainer):
            self.row = unlogged_row(trainer)
            self._save(trainer)
            self.row = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.row is not None:
            checkpoint[ROW] = self.row

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Of a run that ends with a validation this was the last chance; the others are validated, and saved, later.
        validated = isinstance(pl_module, Distiller) and trainer.global_step in pl_module.validated
        if validated and self.saved != trainer.global_step:
            save_finally(trainer, self.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        # It is raised between two batches, by all processes; any other exception may leave half a step.
        if isinstance(exception, SIGTERMException) and not trainer.validating and _between_steps(trainer):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if self.saved != trainer.global_step and save(trainer, self.path):
            self.saved = trainer.global_step


def _between_steps(trainer: L.Trainer) -> bool:
    """Tell whether the last batch completed an optimizer step."""
    return batches_done(trainer) % trainer.accumulate_grad_batches == 0
