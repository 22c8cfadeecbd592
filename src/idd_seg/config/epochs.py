"""`epochs=N`: the length of a training in looks at its pictures."""

from __future__ import annotations

import math

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from idd_seg.config.instantiate import make_data
from idd_seg.errors import ConfigError, MissingDataError


def settle_epochs(cfg: DictConfig, processes: int) -> None:
    """Write the optimizer steps of so many epochs into `trainer.max_steps`.

    An epoch shows each labelled training picture once; the last step may go beyond it.

    Args:
        processes: that share the pictures out among them.

    Raises:
        ConfigError: if the command line also gives `trainer.max_steps`.
    """
    if cfg.get("epochs") is None:
        return
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    if any(word.lstrip("+").startswith("trainer.max_steps=") for word in words):
        raise ConfigError("epochs and trainer.max_steps both say how long the training is; give one of them")
    data = make_data(cfg)
    try:
        pictures = len(data.dataset("train"))
    except MissingDataError:
        return  # whoever looks at the data says what is missing
    labelled = data.batch_size - data.without
    each = max(1, labelled) * processes * int(cfg.trainer.accumulate_grad_batches)
    steps = max(1, math.ceil(cfg.epochs * pictures / each))
    data.say(f"epochs={cfg.epochs:g}: trainer.max_steps={steps} ({pictures} pictures, {each} a step)")
    with open_dict(cfg):
        cfg.trainer.max_steps = steps
