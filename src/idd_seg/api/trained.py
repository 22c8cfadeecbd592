"""What a training leaves to the program that asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from idd_seg.callbacks.checkpoint import BEST, LAST
from idd_seg.errors import ConfigError
from idd_seg.library import Model, load


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        folder: of the run, as the command line leaves it.
        metrics: what `metrics.json` there holds: scores of the `best` and the `last` validation, by class, and times.
        network: the module that was given to be trained, with the weights of `checkpoint`; None for a student that the
            configuration describes, which `model` loads.
    """

    folder: Path
    metrics: Mapping[str, Any]
    network: nn.Module | None = None

    @property
    def miou(self) -> float:
        """mIoU of the best validation on held-out pictures, 0 to 1."""
        return float(self.metrics["best"]["miou"])

    @property
    def checkpoint(self) -> Path:
        """The best validation's weights; the last step's where the run keeps no others."""
        best = self.folder / "checkpoints" / f"{BEST}.ckpt"
        return best if best.is_file() else best.with_name(f"{LAST}.ckpt")

    @cached_property
    def model(self) -> Model:
        """The student of `checkpoint`, ready to predict; loaded once.

        Raises:
            ConfigError: for a student that was given as a module, which no file describes.
        """
        if self.network is not None:
            raise ConfigError(
                f"the student of '{self.folder}' was given as a module, which no file describes: take `network`"
            )
        return load(self.checkpoint)


def trained_in(folder: Path, network: nn.Module | None = None) -> Trained:
    """Return the finished run of a folder."""
    return Trained(folder, json.loads((folder / "metrics.json").read_text(encoding="utf-8")), network)
