"""Values of options that the configuration alone tells to be wrong: said before anything heavy is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg.config.trainer_options import check_trainer
from idd_seg.errors import ConfigError

LARGEST = 1e6  # a learning rate or decay beyond it overflows float32 in the first steps


def whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    """Return a test for whole numbers of a range; `true` is none."""
    return lambda value: type(value) is int and least <= value <= most


def number(least: float, most: float = LARGEST, *, above: bool = False) -> Callable[[Any], bool]:
    """Return a test for finite numbers of a range; with `above` they must lie above its lower end."""
    return lambda value: (
        type(value) in (int, float)
        and math.isfinite(value)
        and least <= value <= most
        and not (above and value == least)
    )


def one_of(*words: Any) -> Callable[[Any], bool]:
    """Return a test for one of a few values, of the same type."""
    return lambda value: any(type(value) is type(word) and value == word for word in words)


def duration(value: Any) -> timedelta | None:
    """Return a time as Lightning writes it, days:hours:minutes:seconds, or in seconds; None for anything else."""
    if number(0, math.inf, above=True)(value):
        return timedelta(seconds=value)
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value) if isinstance(value, str) else None
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


@dataclass(frozen=True)
class Rule:
    """What an option may be, as a test and in words."""

    fits: Callable[[Any], bool]
    words: str


MOST = 2**31 - 1  # steps and their parts: their product with a batch is counted in 64 bits
STEPS = Rule(whole(1, MOST), f"a whole number from 1 to {MOST}, e.g. 40000")
SHARE = Rule(number(0, math.inf, above=True), "a number > 0")
# Those that `auto` leaves to the number of pictures (config/lengths.py).
LENGTH = Rule(lambda value: value == "auto" or STEPS.fits(value), f"{STEPS.words}, or auto")
INTERVAL = Rule(lambda value: value == "auto" or SHARE.fits(value), f"{SHARE.words}, or auto")
RATE = Rule(number(0), f"a number, 0 to {LARGEST:g}")
SWITCH = Rule(one_of(True, False), "true or false")
# The options of a training whose types no constructor of this program declares. Null passes where the option may be
# left out.
RULES: dict[str, Rule] = {
    "seed": Rule(whole(0, 2**32 - 1), "a whole number in 0 .. 2**32 - 1"),
    "resume": Rule(one_of("auto", "never"), "auto, never or null"),
    "trainer.max_steps": LENGTH,
    "trainer.log_every_n_steps": STEPS,
    "trainer.accumulate_grad_batches": STEPS,
    "trainer.val_check_interval": INTERVAL,
    "trainer.limit_val_batches": SHARE,
    "optimizer.lr": RATE,
    "optimizer.weight_decay": RATE,
    "optimizer.momentum": RATE,
    "scheduler.power": Rule(number(0, math.inf), "a number >= 0"),
    "trainer.timeout_minutes": Rule(number(0, above=True), f"a number, above 0 to {LARGEST:g}"),
    "epochs": Rule(number(0, MOST, above=True), f"a number above 0, up to {MOST}, or null"),
    "teacher.every_n_steps": Rule(whole(1, MOST), f"a whole number from 1 to {MOST}"),
    "teacher.start": Rule(whole(0, MOST), f"a whole number from 0 to {MOST}"),
    "teacher.stop": Rule(whole(1, MOST), f"a whole number from 1 to {MOST}, or null"),
    "teacher.scale": Rule(number(0.05, 4), "a number from 0.05 to 4"),
    "measure_batches": Rule(whole(0), "a whole number >= 0"),
    "max_idle_restarts": Rule(whole(0), "a whole number >= 0"),
    "compile": SWITCH,
    "pretrained": SWITCH,
    "trainer.sync_batchnorm": SWITCH,
    "trainer.detect_anomaly": SWITCH,
    "trainer.inference_mode": SWITCH,
    "trainer.deterministic": Rule(one_of(True, False, "warn"), "true or false"),
    "trainer.max_time": Rule(lambda value: duration(value) is not None, "DD:HH:MM:SS, or a number of seconds"),
    "trainer.gradient_clip_val": Rule(number(0, math.inf, above=True), "a number > 0, or null"),
}
REQUIRED = (
    "seed",
    "measure_batches",
    "max_idle_restarts",
    "trainer.timeout_minutes",
    *(key for key, rule in RULES.items() if rule in (STEPS, SHARE, LENGTH, INTERVAL)),
)


def check_ranges(cfg: DictConfig) -> None:
    """Refuse what Lightning or PyTorch would refuse late, or by a message that does not name the option.

    Raises:
        ConfigError: that names option and value.
    """
    for key, rule in RULES.items():
        value = OmegaConf.select(cfg, key)
        if not rule.fits(value) and not (value is None and key not in REQUIRED):
            raise ConfigError(f"{key} must be {rule.words}, got '{value}'")
    check_trainer(cfg)


def check_whole(cfg: DictConfig, key: str, least: int) -> None:
    """Refuse an option that is no whole number, or too small a one.

    Raises:
        ConfigError: that names option and value.
    """
    if not whole(least)(cfg[key]):
        raise ConfigError(f"{key} must be a whole number >= {least}, got '{cfg[key]}'")


def check_switch(cfg: DictConfig, key: str) -> None:
    """Refuse an option that is neither true nor false.

    Raises:
        ConfigError: that names option and value.
    """
    if not SWITCH.fits(cfg[key]):
        raise ConfigError(f"{key} must be {SWITCH.words}, got '{cfg[key]}'")


def words_of(cfg: DictConfig, key: str) -> list[str]:
    """Return an option that is a list of words, or one word alone.

    Raises:
        ConfigError: for anything else.
    """
    value = cfg[key]
    words = [value] if isinstance(value, str) else list(value) if OmegaConf.is_list(value) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{key} must be a list of words, got '{value}'")
    return words
