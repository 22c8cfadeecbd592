"""The network that labels: the student of a run, or a teacher as training would load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from idd_seg.config.instantiate import inference_of, make_data, plain
from idd_seg.config.teacher import load_teacher
from idd_seg.evaluation.device import pick_device
from idd_seg.evaluation.inference import Inference
from idd_seg.library import Model, load
from idd_seg.prediction.label_all import TeacherModel
from idd_seg.prediction.mask_values import MaskValues


@dataclass(frozen=True)
class Labeller:
    """A network, how it is shown pictures, and how masks hold its classes.

    Attributes:
        settings: plain values that all masks depend on.
    """

    model: Model
    inference: Inference
    values: MaskValues
    settings: Mapping[str, Any]


def labeller(cfg: DictConfig, whole_limit: int) -> Labeller:
    """Load what `cfg` names: `teacher=none` takes the student of `checkpoint`, another one is loaded with that file.

    Raises:
        UserError: for a file, class map or device that can't be used.
    """
    if cfg.teacher.name == "none":
        model = load(cfg.checkpoint, cfg.device)
        model.whole_limit = whole_limit
        options, sha256 = model.saved.config("data"), model.saved.sha256
    else:
        data = make_data(cfg)
        teacher = load_teacher(str(cfg.checkpoint), cfg, data)
        model = TeacherModel(teacher, data, pick_device(cfg.device), whole_limit)
        options, sha256 = plain(cfg.data), teacher.source["sha256"]
    inference = inference_of(cfg.eval, options)
    values = MaskValues.of(options, model.class_names, model.palette)
    settings = {
        "network": sha256,
        "class_map": plain(cfg.teacher.get("class_map")),
        "confidence": float(cfg.confidence),
        "eval": inference.as_dict(),
        "whole_limit": whole_limit,
        "values": [*values.values, values.ignored],
    }
    if not model.card.pixels.photograph:
        settings |= {"pixels": str(model.card.pixels), "channels": plain(cfg.teacher.get("channels"))}
    return Labeller(model, inference, values, settings)
