"""Distilling inter-class distance and position information into small segmentation networks."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning import LightningDataModule
    from torch import nn

    from idd_seg.api.trained import Trained
    from idd_seg.api.training import train as train
    from idd_seg.library import Model

__version__ = "0.2.0"


def load(
    path: str | os.PathLike[str], device: str = "auto", precision: Literal["float32", "bfloat16"] = "float32"
) -> Model:
    """Load a trained student, from a checkpoint of a run, an exported folder or an ONNX or OpenVINO file in it.

    Nothing in the files is executed. PyTorch is imported by the first call.

    Args:
        device: `auto` takes a GPU where there is one; or `cpu`, `cuda`, `cuda:1`. Files are run on the CPU.
        precision: of an OpenVINO file; bfloat16 is for CPUs that have it.

    Raises:
        CheckpointError: if what lies there is missing, damaged, hostile, or not of this program.
        ConfigError: if the device or the precision can't be used here.
        UserError: if the runtime of the file is not installed.
    """
    # albumentations, which comes along with the data sets, would ask the network for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from idd_seg.library import load as load_model

    return load_model(path, device, precision)


def from_pretrained(name: str, device: str = "auto", *, revision: str | None = None) -> Model:
    """Load a student from a model hub, where `python -m idd_seg.export hub=OWNER/NAME` has sent it.

    Its configuration and its weights are fetched, by `huggingface_hub`, and nothing else; nothing in them is executed.

    Args:
        name: OWNER/NAME.
        device: as `load` takes it.
        revision: a branch, tag or commit; None is the main branch.

    Raises:
        ConfigError: if the name has another form, or the device can't be used here.
        UserError: if it can't be fetched.
        CheckpointError: if what lies there is no student of this program.
    """
    from idd_seg.exporting.hub import fetched

    return load(fetched(name, revision), device)


def distil(
    teacher: nn.Module | str | os.PathLike[str],
    student: nn.Module | str,
    data: LightningDataModule | str | os.PathLike[str],
    terms: str | Sequence[str] | Mapping[str, float] = ("ce", "kd"),
    *texts: str,
    **options: Any,
) -> Trained:
    """Distil a teacher into a student; each is a name, a file, or what the program has built itself.

    Args:
        teacher: the checkpoint of a run, a choice of `teacher=`, or a module: (N, 3, H, W) float, normalised by the
            data's mean and deviation -> logits (N, K, h, w) or `idd_seg.types.Outputs`. Of a module a copy is frozen.
        student: a choice of `student=`, or such a module, which is trained in place and ends with the best weights;
            `Trained.network` is the same module.
        data: a choice of `data=`, the folder of photographs and masks, or a `SegmentationDataModule`.
        terms: names of terms, or weights by name. `ce` and `kd` take any networks; most others read feature maps.
        texts, options: as `idd_seg.train` takes them.

    Raises:
        UserError: or one of its kinds, for whatever is wrong with options, networks, data or files.
    """
    from idd_seg.api.distillation import distil as distil_them

    return distil_them(teacher, student, data, terms, *texts, **options)


def __getattr__(name: str) -> Any:
    # The module of the command line, which can be called: `idd_seg.train` is one thing, whoever has imported what.
    if name == "train":
        return importlib.import_module("idd_seg.train")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
