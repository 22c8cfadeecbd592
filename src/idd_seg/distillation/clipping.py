"""Gradient clipping beside fused optimizers, which Lightning refuses in mixed precision."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType


def clip_gradients(trainer: L.Trainer, optimizer: Any, value: float | None, algorithm: str | None) -> None:
    """Clip what an optimizer is about to use, by norm or by value, in any precision.

    A fused optimizer divides by the loss scale of float16 as it steps, so Lightning refuses to clip for it. The scaler
    can divide before: it then tells the optimizer that nothing is left to divide by. In bfloat16 nothing is scaled.

    Args:
        value: the largest norm of all gradients together, or the largest element with `algorithm="value"`; None: as
            they are.
    """
    if value is None:
        return
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None and _divides_itself(optimizer):
        plugin.scaler.unscale_(optimizer)
    of_all = Precision.clip_gradients  # without the refusal of its class
    of_all(plugin, optimizer, clip_val=value, gradient_clip_algorithm=GradClipAlgorithmType(algorithm or "norm"))


def _divides_itself(optimizer: Optimizable) -> bool:
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
