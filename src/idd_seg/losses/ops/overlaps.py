"""How the probabilities of each class overlap with its labels, at the labels' resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idd_seg.losses.ops.bands import Bands
from idd_seg.losses.ops.grid import as_float32


def class_overlaps(
    logits: Tensor, labels: Tensor, ignore_index: int, band: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return three sums (K,) over the pixels that count.

    They are the probability of each class where it is the label, its probability everywhere, and its pixels.
    Probabilities of full size never exist as a whole: they are computed again for the gradient.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly, as `interpolate` with align_corners=False does.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.
        band: numbers of full-size logits at a time, at least one row's; None chooses by the device.

    Returns:
        Sums in float32 (float64 stays); the pixels have no gradient.
    """
    logits = as_float32(logits)
    counted = torch.bincount(labels[labels != ignore_index], minlength=logits.shape[1]).to(logits)
    overlap, mass = _Overlaps.apply(logits, labels, ignore_index, band)
    return overlap, mass, counted


def _own(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return each pixel's class (N, 1, rows, W), 0 where it is ignored, and whether it counts."""
    valid = (labels != ignore_index)[:, None]
    return torch.where(valid, labels[:, None], 0), valid


class _Overlaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore: int, band: int | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, labels)
        ctx.ignore, ctx.band = ignore, band
        overlap, mass = logits.new_zeros(2, logits.shape[1])
        for rows, scores in Bands(logits, labels.shape[-2:], band).log_probabilities():
            own, valid = _own(labels[:, rows], ignore)
            probabilities = scores.exp_().mul_(valid)
            mass += probabilities.sum((0, 2, 3))
            overlap += torch.zeros_like(probabilities).scatter_(1, own, probabilities.gather(1, own)).sum((0, 2, 3))
        return overlap, mass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        of_overlap, of_mass = gradients
        gradient = torch.zeros_like(logits)
        bands = Bands(logits, labels.shape[-2:], ctx.band)
        for rows, scores in bands.log_probabilities():
            own, valid = _own(labels[:, rows], ctx.ignore)
            probabilities = scores.exp_()
            of_own = of_overlap[own] * probabilities.gather(1, own)
            mean = (probabilities * of_mass[:, None, None]).sum(1, keepdim=True) + of_own
            slope = probabilities.mul(of_mass[:, None, None] - mean)
            slope.scatter_(1, own, slope.gather(1, own) + of_own)
            gradient += bands.gathered(rows, slope.mul_(valid))
        return gradient, None, None, None
