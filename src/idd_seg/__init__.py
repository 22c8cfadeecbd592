"""Distilling inter-class distance and position information into small segmentation networks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idd_seg.library import Model

__version__ = "0.2.0"


def load(path: str | os.PathLike[str], device: str = "auto") -> Model:
    """Load a trained student, from a checkpoint of a run or an exported folder; see `idd_seg.library`.

    Nothing in the files is executed. PyTorch is imported by the first call.

    Args:
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`.

    Raises:
        CheckpointError: if what lies there is missing, damaged, hostile, or not of this program.
        ConfigError: if the device can't be used here.
    """
    # albumentations, which comes along with the data sets, would ask the network for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from idd_seg.library import load as load_model

    return load_model(path, device)
