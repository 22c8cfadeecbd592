"""Checkpoint files that are whole or not there, and the one before."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from idd_seg.checkpoints.reader import previous_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a full disk or a kill leaves the checkpoint that was there.

    Lightning's own goes by the folder of temporary files, and from another filesystem copies over the target.

    Of `kept` the file before stays too, by the name that `previous_of` gives, if it is known to be whole: written or
    read here.

    Args:
        kept: name of the checkpoint whose last but one is kept; None keeps none.
    """

    def __init__(self, kept: str | None = None) -> None:
        super().__init__()
        self.kept = kept
        self.whole: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; its archive holds a checksum of each record.

        Raises:
            OSError: if it can't be written.
        """
        target = Path(path)
        # Not its parents: a run folder whose disk has gone must not come up again in the place where it was mounted.
        target.parent.mkdir(exist_ok=True)
        draft = target.with_name(f".{target.name}.tmp")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == self.kept and target in self.whole:
                _keep(target)
            draft.replace(target)
            self.whole.add(target)
            _flush_names(target.parent)
        except RuntimeError as error:
            # PyTorch's writer says that its file could not be written, but not why.
            raise OSError(f"is the disk full? {str(error).splitlines()[0]}") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values alone, into main memory: a file may be a stranger's, or of another device."""
        content: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        self.whole.add(Path(path))
        return content


def _keep(target: Path) -> None:
    """Give a file a second name, so that there is no moment without one of the first."""
    second = target.with_name(f".{target.name}.previous")
    second.unlink(missing_ok=True)
    try:
        os.link(target, second)
    except OSError:  # a file system without links
        target.replace(previous_of(target))
        return
    second.replace(previous_of(target))
    second.unlink(missing_ok=True)  # where both were names of one file already, the renaming left both


def _flush_names(folder: Path) -> None:
    """Let the renaming outlast a power cut too."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
