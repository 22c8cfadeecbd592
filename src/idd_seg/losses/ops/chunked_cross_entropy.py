"""Cross-entropy at the labels' resolution, band by band: logits of full size never exist as a whole."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.bands import Bands
from idd_seg.losses.ops.grid import as_float32


def summed_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    band: int | None = None,
    *,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the sum of the cross-entropies of all pixels that count.

    The gradient is computed with the value, so that nothing of a band is kept but its share of the gradient with
    respect to the coarse logits; on a GPU too it is the same at every run.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly, as `interpolate` with align_corners=False does.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.
        band: numbers of full-size logits at a time, at least one row's; None chooses by the device.
        class_weights: (K,), factors of the classes; None is 1 for each.
        smoothing: share of the target that is spread over all classes, 0 to 1, each by its weight; as `cross_entropy`
            of torch.nn.functional has it.

    Returns:
        A scalar in float32 (float64 stays).
    """
    logits = as_float32(logits)
    weights = None if class_weights is None else class_weights.to(logits)
    if smoothing and weights is None:
        weights = logits.new_ones(logits.shape[1])
    total: Tensor = _Banded.apply(logits, labels, ignore_index, band, weights, smoothing)
    return total


@torch.no_grad()
def true_probabilities(logits: Tensor, labels: Tensor, ignore_index: int, band: int | None = None) -> Tensor:
    """Return the probability (N, H, W) of each pixel's own class; 1 where it is ignored. As `summed_cross_entropy`."""
    logits = as_float32(logits)
    own = torch.where(labels == ignore_index, 0, labels)
    found = [
        scores.gather(1, own[:, None, rows])[:, 0]
        for rows, scores in Bands(logits, labels.shape[-2:], band).log_probabilities()
    ]
    return torch.cat(found, 1).exp().masked_fill(labels == ignore_index, 1.0)


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        ignore: int,
        band: int | None,
        weights: Tensor | None,
        smoothing: float,
    ) -> Tensor:
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        bands = Bands(logits, labels.shape[-2:], band)
        total = logits.new_zeros(())
        for rows, scores in bands.log_probabilities():
            part = labels[:, rows]
            # Summed here: a GPU sums within the loss in any order, which `deterministic=true` refuses.
            each = F.nll_loss(scores, part, weights, ignore_index=ignore, reduction="none")
            total += (1 - smoothing) * each.sum()
            if smoothing and weights is not None:
                spread = torch.einsum("nkhw,k->nhw", scores, weights)
                total -= smoothing / len(weights) * spread.masked_fill(part == ignore, 0).sum()
            if gradient is not None:
                gradient += bands.gathered(rows, _slope(scores, part, ignore, weights, smoothing))
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None, None


def _slope(scores: Tensor, labels: Tensor, ignore_index: int, weights: Tensor | None, smoothing: float) -> Tensor:
    """Return the gradient of the sum with respect to full-size logits, in place of their log-probabilities."""
    valid = labels != ignore_index
    slope = scores.exp_()
    own = torch.where(valid, labels, 0)[:, None]
    if weights is None:
        slope.scatter_(1, own, slope.gather(1, own) - 1)
        return slope.mul_(valid[:, None])
    share = smoothing / len(weights)
    own_weight = (1 - smoothing) * weights[own]
    slope.mul_(own_weight + share * weights.sum())
    slope.scatter_(1, own, slope.gather(1, own) - own_weight)
    if smoothing:
        slope.sub_(share * weights[:, None, None])
    return slope.mul_(valid[:, None])
