"""From configuration to objects, and from a checkpoint back to its student."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from idd_seg.checkpoint import Saved, read_checkpoint
from idd_seg.data.base import SegmentationDataModule
from idd_seg.errors import CheckpointError, ConfigError, UserError
from idd_seg.foreign import in_classes_of, is_foreign, open_teacher, say
from idd_seg.inference import Inference
from idd_seg.losses.term import Term
from idd_seg.models.foreign.class_map import Mapped
from idd_seg.models.foreign.network import Opened
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.option_types import check_types

# A network that gets all its weights from a checkpoint and only predicts.
BARE = {"pretrained": False, "weights": None, "auxiliary": False}
OWN_NAMESPACE = ("idd_seg.models.", "idd_seg.data.")


def make(node: Any, where: str, *, typed: bool = True, **extra: Any) -> Any:
    """Instantiate a node of the configuration.

    Args:
        typed: compare its options with their types first; not where nulls wait for what a file will say.
        extra: further arguments of its constructor.

    Raises:
        ConfigError: that names the option, if it is of a wrong type, or the node, if its constructor refuses a value.
    """
    if typed:
        check_types(node, where)
    try:
        return instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        raise ConfigError(f"{where}: {cause or error}") from error


def make_data(cfg: DictConfig) -> SegmentationDataModule:
    """Build the data module; `recipe` is for other groups to read.

    Raises:
        ConfigError: for a missing or refused option.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg.data)):
        raise ConfigError(f"the option 'data.{missing[0]}' has no value; give one: data.{missing[0]}=...")
    node = OmegaConf.masked_copy(cfg.data, [key for key in cfg.data if key != "recipe"])
    node._set_parent(cfg)
    data: SegmentationDataModule = make(node, "data")
    return data


def make_terms(loss: DictConfig) -> dict[str, Term]:
    """Build the terms whose weight is not 0.

    Raises:
        ConfigError: for a weight that is no number or negative, or an option that a term refuses.
    """
    terms: dict[str, Term] = {}
    for name, node in ((str(key), child) for key, child in loss.items()):
        if not isinstance(node, DictConfig):
            continue
        weight = loss[f"{name}_weight"]
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise ConfigError(f"loss.{name}_weight must be a number, got '{weight}'")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"loss.{name}_weight must be a finite number >= 0, got {weight}")
        if weight > 0:
            terms[name] = make(node, f"loss.{name}")
    return terms


def make_student(cfg: DictConfig) -> Segmenter:
    """Build the student, with the weights that the configuration asks for."""
    student: Segmenter = make(cfg.student, "student")
    return student


def load_teacher(checkpoint: str, cfg: DictConfig, data: SegmentationDataModule) -> FrozenTeacher:
    """Build the teacher that `cfg.teacher` describes, with the weights of a run of this program or of another.

    Raises:
        CheckpointError: if the file is unusable, of another network, or, without a `class_map`, of other classes than
            the data.
        ConfigError: for a class map that does not fit data and teacher.
    """
    if is_foreign(cfg.teacher):
        return _foreign_teacher(checkpoint, cfg, data)
    saved, class_map = read_checkpoint(checkpoint), _plain(cfg.teacher, "class_map")
    names = saved.class_names or data.class_names
    if class_map is None:
        check_classes(saved, data)
    node = OmegaConf.merge(cfg.teacher.model, BARE, {"num_classes": len(names)} if class_map else {})
    node._set_parent(cfg.teacher)
    network: nn.Module = make(node, "teacher.model")
    saved.load_into(network, "teacher")
    if class_map is not None:
        network = Mapped(network, class_map, data.class_names, names)
    return FrozenTeacher(network, {"path": str(saved.path.resolve()), "sha256": saved.sha256})


def _foreign_teacher(checkpoint: str, cfg: DictConfig, data: SegmentationDataModule) -> FrozenTeacher:
    opened = open_foreign(checkpoint, cfg, {"data_mean": _plain(cfg.data, "mean"), "data_std": _plain(cfg.data, "std")})
    plan = {key: _plain(cfg.teacher, key) for key in ("class_map", "class_names")}
    network = in_classes_of(opened, plan, data.name, data.class_names)
    say(opened)
    return FrozenTeacher(network, opened.source)


def open_foreign(checkpoint: str, cfg: DictConfig, seen: Mapping[str, Any]) -> Opened:
    """Build the network of `cfg.teacher`, which is one from elsewhere, with its weights.

    Args:
        seen: `data_mean` and `data_std` of the pictures that it will be given.
    """

    def build(node: dict[str, Any]) -> Any:
        return make(OmegaConf.create(node), "teacher.model", typed=False)

    return open_teacher(checkpoint, _plain(cfg.teacher, "model"), build, refuse_foreign, seen)


def open_for_import(cfg: DictConfig) -> tuple[Opened, dict[str, Any]]:
    """Return the network of `cfg.teacher` with the weights of `cfg.checkpoint`, and its configuration as plain values.

    Raises:
        ConfigError: for a teacher that is none from elsewhere.
    """
    model = _plain(cfg.teacher, "model")
    if model is None or not is_foreign(cfg.teacher) or "input" not in model:
        raise ConfigError(f"teacher={cfg.teacher.name}: choose the one that describes the file, e.g. mmseg_pspnet_r101")
    # What the pictures will be like is the business of the training that uses the file.
    unseen = {"data_mean": [0.0] * 3, "data_std": [1.0] * 3}
    return open_foreign(cfg.checkpoint, cfg, unseen), {**model, "input": {**model["input"], **unseen}}


def _plain(cfg: DictConfig, key: str) -> Any:
    """Return an option as plain values; None if there is no such option."""
    value = cfg.get(key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


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
    """Rebuild the data module of a checkpoint, by option at another place."""
    node = {k: v for k, v in saved.config("data").items() if k != "recipe"}
    refuse_foreign({**node, "augment": None}, saved.path)
    if root is not None:
        if "root" not in node:
            raise ConfigError(f"root={root}: data={node.get('name')} is generated and has no folder; leave root out")
        node["root"] = root
    # What the training cached may lie elsewhere by now, and whole pictures are read once.
    # A part of the training split that stood in for `val` was the training's own business.
    plain = {**node, "augment": None, "cache": "none", "held_out": None, **changes}
    data: SegmentationDataModule = make(OmegaConf.create(plain), "data")
    data.augment = None  # the training split is shown and judged whole, too
    return data


def make_inference(node: DictConfig, saved: Saved) -> Inference:
    """Build how pictures are shown; a sliding window is as large as the training crop unless `crop` says otherwise."""
    crop = node.crop
    if node.mode == "slide" and crop is None:
        crop = (saved.config("data").get("augment") or {}).get("crop")
    inference: Inference = make(node, "eval", crop=list(crop) if isinstance(crop, ListConfig) else crop)
    return inference


def _is_own_class(target: str) -> bool:
    """Tell whether a name is a network or data set defined in this program.

    A prefix would not do: `idd_seg.models.weights.pickle.loads` is reachable below this program too.
    """
    module_name, _, name = target.rpartition(".")
    if not module_name.startswith(OWN_NAMESPACE):
        return False
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError):
        return False
    own = isinstance(found, type) and found.__module__ == module_name
    return own and issubclass(found, nn.Module | SegmentationDataModule)


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
