"""How many steps a training takes: `epochs=N`, and lengths that follow from the number of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.config.instantiate import make_data
from idd_seg.errors import ConfigError, MissingDataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

AUTO = "auto"  # data.recipe.max_steps, data.recipe.val_every, and what takes its value from them
LOOKS, LEAST, MOST = 100, 2000, 40000  # at each picture; steps
VALIDATIONS = 10  # of a training of such a length
LENGTHS = ("trainer.max_steps", "teacher.training.max_steps")


def settle_lengths(cfg: DictConfig, processes: Callable[[], int], given: SegmentationDataModule | None = None) -> None:
    """Write numbers in the place of `epochs` and of lengths that are `auto`.

    An epoch shows each labelled training picture once; the last step may go beyond it.
    A length of `auto` is for teacher and student, and does not depend on `processes`: 100 looks at each picture, 2000
    steps at least and 40000 at most. Validations that are `auto` come ten times.

    Args:
        processes: tells how many share the pictures out among them.
        given: by a program, in place of what `cfg` describes.

    Raises:
        ConfigError: if the command line gives both `epochs` and `trainer.max_steps`.
    """
    every = _is_auto(cfg, "trainer.val_check_interval")
    by_pictures = any(_is_auto(cfg, key) for key in LENGTHS)
    if cfg.get("epochs") is not None or by_pictures:
        _settle_steps(cfg, processes, given, by_pictures=by_pictures)
    steps = OmegaConf.select(cfg, "trainer.max_steps")
    if every and type(steps) is int:
        with open_dict(cfg):
            cfg.trainer.val_check_interval = interval_for(steps)  # the recipe's stays `auto`: a teacher has its own


def steps_for(pictures: int, batch: int) -> int:
    """Return the length of a training on so many pictures."""
    return min(MOST, max(LEAST, math.ceil(LOOKS * pictures / batch)))


def interval_for(steps: int) -> int:
    """Return the steps between the validations of a training of so many."""
    return max(1, steps // VALIDATIONS)


def teachers_interval(cfg: DictConfig) -> int | float:
    """Return the steps between a teacher's validations: the student's, or ten validations where those are `auto`."""
    every: int | float = cfg.trainer.val_check_interval
    steps, own = cfg.trainer.max_steps, cfg.teacher.training.max_steps
    if not _is_auto(cfg, "data.recipe.val_every") or type(steps) is not int or type(own) is not int:
        return every  # also for lengths that are none, which is said later
    return interval_for(own) if every == interval_for(steps) else every


def _settle_steps(
    cfg: DictConfig, processes: Callable[[], int], given: SegmentationDataModule | None, *, by_pictures: bool
) -> None:
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    epochs = cfg.get("epochs")
    if epochs is not None and any(word.lstrip("+").startswith("trainer.max_steps=") for word in words):
        raise ConfigError("epochs and trainer.max_steps both say how long the training is; give one of them")
    data = given or make_data(cfg)
    try:
        pictures = len(data.dataset("train"))
    except MissingDataError:
        pictures = 0  # whoever looks at the data says what is missing
    with open_dict(cfg):
        if by_pictures:
            steps = steps_for(pictures, data.batch_size)
            for key in LENGTHS:
                _fill(cfg, key, "data.recipe.max_steps", steps)
            if pictures and (epochs is None or _trains_a_teacher(cfg)):
                data.say(f"data.recipe.max_steps={steps}: {_seen(steps, pictures, data.batch_size)}")
        if epochs is not None and pictures:
            each = max(1, data.batch_size - data.without) * processes() * int(cfg.trainer.accumulate_grad_batches)
            cfg.trainer.max_steps = max(1, math.ceil(epochs * pictures / each))
            data.say(
                f"epochs={epochs:g}: trainer.max_steps={cfg.trainer.max_steps} ({pictures} pictures, {each} a step)"
            )


def _seen(steps: int, pictures: int, batch: int) -> str:
    limit = {LEAST: ", the least number of steps", MOST: ", the most steps"}.get(steps, "")
    return f"each of {pictures} pictures is seen {steps * batch / pictures:.0f} times, {batch} a step{limit}"


def _is_auto(cfg: DictConfig, key: str) -> bool:
    return bool(OmegaConf.select(cfg, key) == AUTO)


def _fill(cfg: DictConfig, key: str, source: str, value: int) -> None:
    """Write a number where there is `auto`: at the source, from which others take it too, and else at the key."""
    for name in (source, key):
        if _is_auto(cfg, name):
            OmegaConf.update(cfg, name, value)


def _trains_a_teacher(cfg: DictConfig) -> bool:
    return bool(OmegaConf.select(cfg, "teacher.checkpoint") == AUTO)
