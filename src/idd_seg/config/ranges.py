"""Numbers of a training that the configuration alone tells to be wrong: said before anything heavy is imported."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg.errors import ConfigError

LARGEST = 1e6  # a learning rate or decay beyond it overflows float32 in the first steps


def check_whole(cfg: DictConfig, key: str, least: int) -> None:
    """Refuse an option that is no whole number, or too small a one.

    Raises:
        ConfigError: that names option and value.
    """
    value = cfg[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key} must be a whole number >= {least}, got '{value}'")


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


def check_numbers(cfg: DictConfig) -> None:
    """Refuse what Lightning or PyTorch would refuse late, or by a message that does not name the option.

    Raises:
        ConfigError: that names option and value.
    """
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed must be a whole number in 0 .. 2**32 - 1, got '{cfg.seed}'")
    for key in ("max_steps", "log_every_n_steps", "accumulate_grad_batches"):
        if not isinstance(cfg.trainer[key], int) or isinstance(cfg.trainer[key], bool) or cfg.trainer[key] < 1:
            raise ConfigError(f"trainer.{key} must be a whole number > 0, e.g. 40000, got '{cfg.trainer[key]}'")
    for key in ("val_check_interval", "limit_val_batches"):
        if not _is_number(cfg.trainer[key]) or not cfg.trainer[key] > 0:
            raise ConfigError(f"trainer.{key} must be a number > 0, got '{cfg.trainer[key]}'")
    for key in ("lr", "weight_decay", "momentum"):
        value = cfg.optimizer.get(key)
        if value is not None and not (_is_number(value) and 0 <= value <= LARGEST):
            raise ConfigError(f"optimizer.{key} must be a number, 0 to {LARGEST:g}, got '{value}'")
    power, minutes = cfg.scheduler.get("power"), cfg.trainer.get("timeout_minutes")
    if power is not None and not (_is_number(power) and power >= 0):
        raise ConfigError(f"scheduler.power must be a number >= 0, got '{power}'")
    if minutes is not None and not (_is_number(minutes) and 0 < minutes <= LARGEST):
        raise ConfigError(f"trainer.timeout_minutes must be a number, above 0 to {LARGEST:g}, got '{minutes}'")
    check_whole(cfg, "measure_batches", 0)
    for key in ("compile", "pretrained", "trainer.deterministic"):
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, bool | None) and (key, value) != ("trainer.deterministic", "warn"):
            raise ConfigError(f"{key} must be true or false, got '{value}'")
    clip = cfg.trainer.get("gradient_clip_val")
    if clip is not None and not (_is_number(clip) and clip > 0):
        raise ConfigError(f"trainer.gradient_clip_val must be a number > 0, or null, got '{clip}'")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
