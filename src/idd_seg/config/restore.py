"""From a checkpoint back to its student and its data set; nothing but classes of this program is built."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from torch import nn

from idd_seg.checkpoints.reader import Saved
from idd_seg.config.instantiate import make
from idd_seg.data.pipeline.other_classes import with_own_classes
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.segmenter import Segmenter

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

# A network that gets all its weights from a checkpoint and only predicts.
BARE = {"pretrained": False, "weights": None, "auxiliary": False}
OWN_NAMESPACE = ("idd_seg.models.", "idd_seg.data.")


def check_classes(saved: Saved, data: SegmentationDataModule) -> None:
    theirs = saved.class_names
    if theirs is not None and len(theirs) != data.num_classes:
        raise CheckpointError(
            f"'{saved.path}' was trained for {len(theirs)} classes, data={data.name} has {data.num_classes} "
            "(data.num_classes); take a teacher of this data set, or say by teacher.class_map which of its classes "
            "stand for the data's"
        )
    if theirs is not None and theirs != data.class_names:
        differ = next((a, b) for a, b in zip(theirs, data.class_names, strict=True) if a != b)
        raise CheckpointError(
            f"'{saved.path}' was trained for other classes than data={data.name}: "
            f"'{differ[0]}' stands where the data has '{differ[1]}'"
        )


def student_from(saved: Saved) -> Segmenter:
    """Rebuild the student of a checkpoint, ready to predict.

    Raises:
        CheckpointError: if the checkpoint's configuration names anything outside this program.
    """
    node = dict(saved.config("student"))
    refuse_foreign(node, saved.path)
    network = make(OmegaConf.create({**node, **BARE}), "student")
    if not isinstance(network, Segmenter):
        raise CheckpointError(f"'{saved.path}': its student is a {type(network).__name__}, not a network that segments")
    saved.load_into(network, "student")
    return network.eval()


def data_from(saved: Saved, root: str | None, **changes: Any) -> SegmentationDataModule:
    """Rebuild the data module of a checkpoint, by option at another place.

    A class list that lies there says what the labels there stand for; the classes keep the order of the training.
    """
    node = {k: v for k, v in saved.config("data").items() if k != "recipe"}
    refuse_foreign({**node, "augment": None}, saved.path)
    if root is not None and "root" not in node:
        raise ConfigError(f"root={root}: data={node.get('name')} is generated and has no folder; leave root out")
    node, said = with_own_classes(node, root)
    if said is not None:
        warnings.warn(f"data={node.get('name')}: {said}", stacklevel=2)
    if root is not None:
        node["root"] = root
    # What the training cached may lie elsewhere by now, and whole pictures are read once.
    # A part of the training split that stood in for `val` was the training's own business.
    own = {"augment": None, "cache": "none", "held_out": None, "unlabelled": None, "labelled_share": 1.0}
    plain = {**node, **own, **changes}
    data: SegmentationDataModule = make(OmegaConf.create(plain), "data")
    data.augment = None  # the training split is shown and judged whole, too
    return data


def _is_own_class(target: str) -> bool:
    """Tell whether a name is a network or data set defined in this program.

    A prefix would not do: `idd_seg.models.pretrained.weights.pickle.loads` is reachable below this program too.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name.startswith(OWN_NAMESPACE):
        return False
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError):
        return False
    if not isinstance(found, type) or found.__module__ != module_name:
        return False
    if issubclass(found, nn.Module):
        return True
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule  # here: it imports Lightning, which takes time

    return issubclass(found, SegmentationDataModule)


def refuse_foreign(node: Any, path: Path) -> None:
    """Refuse a stored configuration that would call anything but this program's networks and data sets.

    A configuration is code: its `_target_` is called. One that lies in a checkpoint may be a stranger's.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not _is_own_class(str(target)):
            raise CheckpointError(f"'{path}': its configuration would call '{target}', which is not of this program")
        for child in node.values():
            refuse_foreign(child, path)
    elif isinstance(node, list | tuple):
        for child in node:
            refuse_foreign(child, path)
    elif isinstance(node, str) and "${" in node:
        raise CheckpointError(f"'{path}': its configuration holds the expression '{node}'; only plain values are read")
