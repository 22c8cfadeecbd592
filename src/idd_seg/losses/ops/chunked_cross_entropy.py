"""Cross-entropy at the labels' resolution, band by band: logits of full size never exist as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import as_float32, no_autocast

# Numbers of a band's logits: 32 MB, and 128 MB on a GPU, which waits for the launches of many small ones.
BAND = {"cpu": 2**23, "cuda": 2**25}


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
    total: Tensor = _Banded.apply(logits, labels, ignore_index, _band(logits, band), weights, smoothing)
    return total


@torch.no_grad()
def true_probabilities(logits: Tensor, labels: Tensor, ignore_index: int, band: int | None = None) -> Tensor:
    """Return the probability (N, H, W) of each pixel's own class; 1 where it is ignored. As `summed_cross_entropy`."""
    logits = as_float32(logits)
    own = torch.where(labels == ignore_index, 0, labels)
    found = [
        scores.gather(1, own[:, top : top + scores.shape[-2], None].transpose(1, 2))[:, 0]
        for top, scores in _log_probabilities(logits, labels.shape[-2:], _band(logits, band))
    ]
    return torch.cat(found, 1).exp().masked_fill(labels == ignore_index, 1.0)


def _band(logits: Tensor, band: int | None) -> int:
    return band or BAND.get(logits.device.type, 2**25)


def _log_probabilities(logits: Tensor, size: Sequence[int], band: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row of each band, and the log-probabilities (N, K, rows, W) of its pixels."""
    images, classes, cells, _ = logits.shape
    height, width = size
    rows = _weights(height, cells, logits)
    each = max(1, band // (images * classes * width))
    for top in range(0, height, each):
        with no_autocast(logits), _full_precision():
            # Along the rows first, where there are few; then each row by itself.
            narrow = torch.matmul(rows[top : top + each], logits)
            scores = F.log_softmax(_widened(narrow, width), 1)
        yield top, scores


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, ignore: int, band: int, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        rows, columns = (_weights(*sides, logits) for sides in zip(labels.shape[-2:], logits.shape[-2:], strict=True))
        total = logits.new_zeros(())
        for top, scores in _log_probabilities(logits, labels.shape[-2:], band):
            part = labels[:, top : top + scores.shape[-2]]
            total += (1 - smoothing) * F.nll_loss(scores, part, weights, ignore_index=ignore, reduction="sum")
            if smoothing and weights is not None:
                spread = torch.einsum("nkhw,k->nhw", scores, weights)
                total -= smoothing / len(weights) * spread.masked_fill(part == ignore, 0).sum()
            if gradient is not None:
                with no_autocast(logits), _full_precision():
                    slope = torch.matmul(_slope(scores, part, ignore, weights, smoothing), columns)
                    gradient += torch.matmul(rows[top : top + scores.shape[-2]].mT, slope)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None, None


def _weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix (pixels, cells) that interpolates linearly along one side."""
    unit = torch.eye(cells, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=pixels, mode="linear", align_corners=False)[0].mT.contiguous()


def _widened(narrow: Tensor, width: int) -> Tensor:
    if narrow.shape[-1] == width:
        return narrow
    return F.interpolate(narrow, size=(narrow.shape[-2], width), mode="bilinear", align_corners=False)


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


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep products in float32 where TF32 is allowed: they interpolate."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
