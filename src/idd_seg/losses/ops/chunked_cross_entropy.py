"""Cross-entropy at the labels' resolution, band by band: logits of full size never exist as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import as_float32, no_autocast

# Numbers of a band's logits: 32 MB, and 128 MB on a GPU, which waits for the launches of many small ones.
BAND = {"cpu": 2**23, "cuda": 2**25}


def summed_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, band: int | None = None) -> Tensor:
    """Return the sum of the cross-entropies of all pixels that count.

    The gradient is computed with the value, so that nothing of a band is kept but its share of the gradient with
    respect to the coarse logits; on a GPU too it is the same at every run.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly, as `interpolate` with align_corners=False does.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.
        band: numbers of full-size logits at a time, at least one row's; None chooses by the device.

    Returns:
        A scalar in float32 (float64 stays).
    """
    logits = as_float32(logits)
    total: Tensor = _Banded.apply(logits, labels, ignore_index, band or BAND.get(logits.device.type, 2**25))
    return total


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, ignore_index: int, band: int) -> Tensor:
        images, classes, cells, across = logits.shape
        height, width = labels.shape[-2:]
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        rows, columns = _weights(height, cells, logits), _weights(width, across, logits)
        total = logits.new_zeros(())
        each = max(1, band // (images * classes * width))
        with no_autocast(logits), _full_precision():
            for top in range(0, height, each):
                part = labels[:, top : top + each]
                # Along the rows first, where there are few; then each row by itself.
                narrow = torch.matmul(rows[top : top + each], logits)
                scores = F.log_softmax(_widened(narrow, width), 1)
                total += F.nll_loss(scores, part, ignore_index=ignore_index, reduction="sum")
                if gradient is not None:
                    slope = torch.matmul(_slope(scores, part, ignore_index), columns)
                    gradient += torch.matmul(rows[top : top + each].mT, slope)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None


def _weights(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix (pixels, cells) that interpolates linearly along one side."""
    unit = torch.eye(cells, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=pixels, mode="linear", align_corners=False)[0].mT.contiguous()


def _widened(narrow: Tensor, width: int) -> Tensor:
    if narrow.shape[-1] == width:
        return narrow
    return F.interpolate(narrow, size=(narrow.shape[-2], width), mode="bilinear", align_corners=False)


def _slope(scores: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the gradient of the sum with respect to full-size logits, in place of their log-probabilities."""
    valid = labels != ignore_index
    slope = scores.exp_()
    own = torch.where(valid, labels, 0)[:, None]
    slope.scatter_(1, own, slope.gather(1, own) - 1)
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
