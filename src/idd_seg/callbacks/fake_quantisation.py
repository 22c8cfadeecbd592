"""`quantize=int8`: a student trains on with layers rounded to 8 bits, so that an export in 8 bits loses less."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import nn

from idd_seg.errors import ConfigError
from idd_seg.models.rounded_layers import RoundedLayers


class FakeQuantisation(L.Callback):
    """Rounds inputs of the student's convolutions to 8 bits and weights to 7, in training and in validation.

    Checkpoints hold the weights in floating point, and the ranges of the inputs for a run that goes on.

    Args:
        momentum: share of a new batch in the ranges of the inputs, above 0 and at most 1.

    Raises:
        ConfigError: if `momentum` is out of range.
    """

    def __init__(self, momentum: float = 0.05) -> None:
        if not 0 < momentum <= 1:
            raise ConfigError(f"quantize.momentum must be above 0 and at most 1, got {momentum}")
        self.momentum = momentum
        self.rounded: RoundedLayers | None = None
        self._kept: dict[str, Any] = {}
        self._handles: list[Any] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        student = pl_module.student
        assert isinstance(student, nn.Module)
        rounded = RoundedLayers(student, self.momentum)
        rounded.ranges.update({name: value.to(pl_module.device) for name, value in self._kept.items()})
        self.rounded = rounded
        self._handles = [
            student.register_forward_pre_hook(lambda *_: rounded.enter()),
            student.register_forward_hook(lambda *_: rounded.leave(), always_call=True),
        ]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        assert self.rounded is not None
        self.rounded.follow()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        return {"ranges": {} if self.rounded is None else dict(self.rounded.ranges)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = dict(state_dict["ranges"])
