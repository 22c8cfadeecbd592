"""Gradient clipping beside fused optimizers, which Lightning refuses in mixed precision."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType

from idd_seg.ops.private_api import divides_by_loss_scale


def clip_gradients(
    trainer: L.Trainer, optimizer: Any, value: float | None, algorithm: str | None, left_out: bool
) -> None:
    """Clip what an optimizer is about to use, by norm or by value, in any precision.

    A fused optimizer divides by the loss scale of float16 as it steps, so Lightning refuses to clip for it. The scaler
    can divide before: it then tells the optimizer that nothing is left to divide by. In bfloat16 nothing is scaled.

    Args:
        value: the largest norm of all gradients together, or the largest element with `algorithm="value"`; None: as
            they are.
        left_out: the batch had no loss. In float16 no step follows then, and a scaler may divide once a step.
    """
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    if value is None or (scaler is not None and left_out):
        return
    if scaler is not None and divides_by_loss_scale(optimizer):
        scaler.unscale_(optimizer)
    of_all = Precision.clip_gradients  # without the refusal of its class
    of_all(plugin, optimizer, clip_val=value, gradient_clip_algorithm=GradClipAlgorithmType(algorithm or "norm"))
