"""The frozen teacher that a configuration describes, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.instantiate import make, plain
from idd_seg.config.restore import BARE, check_classes, refuse_foreign
from idd_seg.config.teacher_channels import RGB, channels_of, normalisation, shown_channels
from idd_seg.config.teacher_file import as_trained, named, scale_of
from idd_seg.config.teacher_plan import is_foreign
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.class_map import Mapped
from idd_seg.models.foreign.network import Opened
from idd_seg.models.foreign.opening import in_classes_of, open_teacher, say
from idd_seg.models.teacher import FrozenTeacher

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


def load_teacher(
    checkpoint: str, cfg: DictConfig, data: SegmentationDataModule, *, aloud: bool = True
) -> FrozenTeacher:
    """Build the teacher that `cfg.teacher` describes, with the weights of a run of this program or of another.

    Args:
        aloud: print what of a file from elsewhere was loaded and left out.

    Raises:
        CheckpointError: if the file is unusable, of another network, or, without a `class_map`, of other classes than
            the data.
        ConfigError: for a class map that does not fit data and teacher.
    """
    if is_foreign(cfg.teacher):
        return _foreign_teacher(checkpoint, cfg, data, aloud=aloud)
    saved, class_map = read_checkpoint(checkpoint), plain(cfg.teacher.get("class_map"))
    names = saved.class_names or data.class_names
    if class_map is None:
        check_classes(saved, data)
    changes = {**BARE, "num_classes": len(names)} if class_map else BARE
    own_channels = channels_of(saved)
    shown = shown_channels(cfg, own_channels)
    if own_channels != cfg.teacher.model.get("in_channels", RGB):
        changes = {**changes, "in_channels": own_channels}
    network: nn.Module = make(OmegaConf.create({**plain(cfg.teacher.model), **changes}), "teacher.model")
    try:
        saved.load_into(network, "teacher")
    except CheckpointError as error:
        raise named(error, saved, cfg) from error
    seen = normalisation(cfg, shown)
    network = as_trained(network, saved, seen["data_mean"], seen["data_std"])
    if class_map is not None:
        network = Mapped(network, class_map, data.class_names, names)
    source = {"path": str(saved.path.resolve()), "sha256": saved.sha256}
    own = scale_of(saved, cfg.data.image_scale)
    if aloud and own != 1:
        data.say(f"the teacher was trained on pictures of {own:g} times the size, and sees them so")
    return FrozenTeacher(network, source, cfg.teacher.get("scale", 1.0) * own, shown, own_channels)


def _foreign_teacher(checkpoint: str, cfg: DictConfig, data: SegmentationDataModule, *, aloud: bool) -> FrozenTeacher:
    shown = shown_channels(cfg, RGB)
    opened = open_foreign(checkpoint, cfg, normalisation(cfg, shown))
    named = {key: plain(cfg.teacher.get(key)) for key in ("class_map", "class_names")}
    network = in_classes_of(opened, named, data.name, data.class_names)
    if aloud:
        say(opened)
    return FrozenTeacher(network, opened.source, cfg.teacher.get("scale", 1.0), shown)


def open_foreign(checkpoint: str, cfg: DictConfig, seen: Mapping[str, Any]) -> Opened:
    """Build the network of `cfg.teacher`, which is one from elsewhere, with its weights.

    Args:
        seen: `data_mean` and `data_std` of the pictures that it will be given.
    """

    def build(node: dict[str, Any]) -> Any:
        return make(OmegaConf.create(node), "teacher.model", typed=False)

    return open_teacher(checkpoint, plain(cfg.teacher.model), build, refuse_foreign, seen)


def open_for_import(cfg: DictConfig) -> tuple[Opened, dict[str, Any]]:
    """Return the network of `cfg.teacher` with the weights of `cfg.checkpoint`, and its configuration as plain values.

    Raises:
        ConfigError: for a teacher that is none from elsewhere.
    """
    model = plain(cfg.teacher.model)
    if model is None or not is_foreign(cfg.teacher) or "input" not in model:
        raise ConfigError(f"teacher={cfg.teacher.name}: choose the one that describes the file, e.g. mmseg_pspnet_r101")
    # What the pictures will be like is the business of the training that uses the file.
    unseen = {"data_mean": [0.0] * 3, "data_std": [1.0] * 3}
    return open_foreign(cfg.checkpoint, cfg, unseen), {**model, "input": {**model["input"], **unseen}}
