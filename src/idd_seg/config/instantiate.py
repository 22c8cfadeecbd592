"""From configuration to objects."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from idd_seg.checkpoints.reader import Saved
from idd_seg.config.option_roles import without
from idd_seg.config.option_types import check_types
from idd_seg.data.pipeline.auto_crop import AUTO, crop_for
from idd_seg.errors import ConfigError, UserError
from idd_seg.evaluation.inference import Inference
from idd_seg.losses.term import Term
from idd_seg.models.segmenter import Segmenter

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


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
        if isinstance(cause, TypeError) and (word := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
            raise ConfigError(
                f"{where}: there is no option '{word[1]}' ({cause}); --help=all lists the options"
            ) from error
        raise ConfigError(f"{where}: {cause or error}") from error


def plain(node: Any) -> Any:
    """Return a part of the configuration as plain values, with what it refers to filled in."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def make_data(cfg: DictConfig, *, typed: bool = True) -> SegmentationDataModule:
    """Build the data module; `recipe` is for other groups to read.

    Raises:
        ConfigError: for a missing or refused option.
    """
    if missing := sorted(OmegaConf.missing_keys(cfg.data)):
        raise ConfigError(f"the option 'data.{missing[0]}' has no value; give one: data.{missing[0]}=...")
    node = without(plain(cfg.data), ["recipe"])
    if (node.get("augment") or {}).get("crop") == AUTO:
        _settle_crop(cfg, node, typed=typed)
        node = without(plain(cfg.data), ["recipe"])
    data: SegmentationDataModule = make(OmegaConf.create(node), "data", typed=typed)
    return data


def _settle_crop(cfg: DictConfig, node: dict[str, Any], *, typed: bool) -> None:
    """Write a crop that suits the photographs in the place of `data.augment.crop=auto`."""
    bare: SegmentationDataModule = make(OmegaConf.create({**node, "augment": None}), "data", typed=typed)
    crop, said = crop_for(bare)
    if said is not None:
        bare.say(said)
    with open_dict(cfg):
        cfg.data.augment.crop = crop


def term_weights(loss: DictConfig) -> dict[str, float]:
    """Return the weight of each term, under the name by which it is given: `loss.<term>_weight`.

    Raises:
        ConfigError: for a weight that is no number or negative.
    """
    names = [str(name) for name, node in loss.items() if isinstance(node, DictConfig)]
    weights = {name: loss[f"{name}_weight"] for name in names}
    for name, weight in weights.items():
        if type(weight) not in (int, float):
            raise ConfigError(f"loss.{name}_weight must be a number, got '{weight}'")
        if not 0 <= weight < math.inf:
            raise ConfigError(f"loss.{name}_weight must be a finite number >= 0, got {weight}")
    return weights


def make_terms(loss: DictConfig, *, typed: bool = True) -> dict[str, Term]:
    """Build the terms whose weight is not 0.

    Raises:
        ConfigError: for a weight that is no number or negative, or an option that a term refuses.
    """
    weights = term_weights(loss)
    return {name: make(loss[name], f"loss.{name}", typed=typed) for name, weight in weights.items() if weight > 0}


def make_student(cfg: DictConfig, *, typed: bool = True) -> Segmenter:
    """Build the student, with the weights that the configuration asks for.

    One that begins from a finished student (`init_from`) has no use for ImageNet's.
    """
    bare = {"pretrained": False, "weights": None} if cfg.get("init_from") else {}
    student: Segmenter = make(OmegaConf.merge(cfg.student, bare), "student", typed=typed)
    return student


def make_inference(node: DictConfig, saved: Saved) -> Inference:
    """Build how pictures are shown; a sliding window is as large as the training crop unless `crop` says otherwise."""
    return inference_of(node, saved.config("data"))


def inference_of(node: DictConfig, data: Mapping[str, Any]) -> Inference:
    """Build how pictures are shown to a network that was trained with these options of a data set."""
    crop = node.crop
    if node.mode == "slide" and crop is None:
        crop = (data.get("augment") or {}).get("crop")
    inference: Inference = make(node, "eval", crop=list(crop) if isinstance(crop, ListConfig) else crop)
    return inference
