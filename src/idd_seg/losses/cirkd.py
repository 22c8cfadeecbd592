"""Cross-image relations: how similar a pixel is to all pixels of each image of the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.adapters import MapTerm, comparable, unit
from idd_seg.losses.grid import no_autocast
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.types import Batch, Outputs

# Similarities held at once in one map; 8 MB in float32.
ENTRIES = 2**21


def _check_options(temperature: float, pool: int, entries: int) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    for name, value in (("pool", pool), ("entries", entries)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")


def _log_rows(rows: Tensor, vectors: Tensor, images: int, temperature: float) -> Tensor:
    """Log-probabilities (r, N, P) of some rows against the positions of each image."""
    similarity = torch.mm(rows, vectors.T).div_(temperature)
    return F.log_softmax(similarity.view(len(rows), images, -1), dim=2)


class _RowDivergence(torch.autograd.Function):
    """Sum over rows and images of the divergence, and its gradient in the same pass.

    Autograd would keep every chunk's similarities, (N P)^2 in all, or compute them twice. The gradient of a row's
    divergence with respect to its similarities is known before they are dropped: (softmax_s - softmax_t) / T.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, images: int, temperature: float, rows: int) -> Tensor:
        total = student.new_zeros(())
        gradient = torch.zeros_like(student) if ctx.needs_input_grad[0] else None
        for start in range(0, len(student), rows):
            chunk = slice(start, start + rows)
            log_s = _log_rows(student[chunk], student, images, temperature)
            log_t = _log_rows(teacher[chunk], teacher, images, temperature)
            target = log_t.exp()
            total += log_t.sub_(log_s).mul_(target).sum()
            if gradient is not None:
                error = log_s.exp_().sub_(target).flatten(1)
                # A vector takes part as the row, and as a column of every row.
                gradient[chunk].addmm_(error, student, alpha=1 / temperature)
                gradient.addmm_(error.T, student[chunk], alpha=1 / temperature)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of cross_image can't be differentiated again")
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None, None


def _vectors(features: Tensor, pool: int) -> Tensor:
    """Unit vectors (N P, C) of all positions, image by image."""
    if pool > 1:
        features = F.avg_pool2d(features, pool, ceil_mode=True)
    return unit(features.flatten(2), dim=1).transpose(1, 2).flatten(0, 1)


def cross_image(
    student: Tensor, teacher: Tensor, *, temperature: float, pool: int = 1, entries: int = ENTRIES
) -> Tensor:
    r"""Mean divergence between the teacher's and the student's similarities of pixels across images.

    .. math:: \frac{1}{N^2 P} \sum_{i,j} \sum_p \mathrm{KL}\big(
              \mathrm{softmax}_q(\cos(t_{ip}, t_{jq}) / T) \,\|\, \mathrm{softmax}_q(\cos(s_{ip}, s_{jq}) / T)\big)

    over all ordered pairs (i, j) of images, also i = j, as in the authors' code: a batch of one image has a pair too.
    C. Yang et al., "Cross-image relational knowledge distillation for semantic segmentation", CVPR 2022, its mini-batch
    part. With several processes, pairs lie within the images of each.

    Beside the features, memory holds four maps of `entries` similarities at a time, never all (N P)^2; nothing is
    computed twice. The gradient can't be differentiated again.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        temperature: T > 0; the authors use 0.1.
        pool: positions are means over pool x pool cells, fewer at the far border; 1 takes every cell.
        entries: similarities held at once, at least one row of N P.

    Returns:
        A scalar in float32. A position of zeros is equally similar to all.

    Raises:
        ValueError: if the temperature is not positive, or pool or entries is below 1.
    """
    _check_options(temperature, pool, entries)
    student, teacher = comparable(student, teacher)
    ours, theirs = _vectors(student, pool), _vectors(teacher, pool)
    images, rows = len(student), max(1, entries // len(ours))
    with no_autocast(ours):
        total: Tensor = _RowDivergence.apply(ours, theirs, images, temperature, rows)
    return total / (images * len(ours))


class CrossImage(MapTerm):
    """`cross_image` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, an option out of range, or a tap that a network does not give.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.1,
        pool: int = 1,
        entries: int = ENTRIES,
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule)
        _check_options(temperature, pool, entries)
        self.temperature, self.pool, self.entries = float(temperature), pool, entries

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = self.maps(student, teacher)
        return cross_image(ours, theirs, temperature=self.temperature, pool=self.pool, entries=self.entries)
