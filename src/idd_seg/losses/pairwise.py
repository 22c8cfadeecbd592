"""Pair-wise distillation: how similar any two parts of an image are."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.adapters import MapTerm, comparable, unit
from idd_seg.losses.ops.grid import no_autocast
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.types import Batch, Outputs

# Similarities held at once in one map; 16 MB in float32.
ENTRIES = 2**22


def _check_pool(pool: float) -> None:
    whole = isinstance(pool, int) and not isinstance(pool, bool) and pool >= 1
    share = isinstance(pool, float) and 0 < pool < 1
    if not (whole or share):
        raise ValueError(f"pool must be a whole number of cells >= 1, or a share of the map in (0, 1), got {pool!r}")


def _kernel(pool: float, side: int) -> int:
    # The small number lets a share such as 0.29 of 100 cells be 29 in spite of rounding.
    cells = pool if isinstance(pool, int) else math.floor(pool * side + 1e-6)
    return min(max(cells, 1), side)


def _nodes(features: Tensor, pool: float) -> Tensor:
    """Unit vectors (N, M, C) of the M windows."""
    kernel = (_kernel(pool, features.shape[-2]), _kernel(pool, features.shape[-1]))
    pooled = F.max_pool2d(features, kernel, stride=kernel, ceil_mode=True)
    return unit(pooled.flatten(2), dim=1).transpose(1, 2)


class _RowError(torch.autograd.Function):
    """Sum of squared differences of two similarity maps (N, M, M), and its gradient in the same pass.

    Autograd would keep every chunk's differences. Similarities are symmetric, so the gradient with respect to a row's
    vector is 4 times the differences of that row alone, times the vectors.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, rows: int) -> Tensor:
        total = student.new_zeros(())
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        for start in range(0, student.shape[1], rows):
            chunk = slice(start, start + rows)
            # Both products by the same routine: what is equal differs by exactly 0.
            difference = torch.bmm(student[:, chunk], student.mT) - torch.bmm(teacher[:, chunk], teacher.mT)
            if gradient is not None:
                gradient[:, chunk] = 4 * torch.bmm(difference, student)
            total += difference.square_().sum()
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of pairwise can't be differentiated again")
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None


def pairwise(student: Tensor, teacher: Tensor, *, pool: float) -> Tensor:
    r"""Mean squared difference between the teacher's and the student's similarities of the parts of an image.

    .. math:: \frac{1}{N M^2} \sum_n \sum_{i,j} \big(a^s_{ij} - a^t_{ij}\big)^2, \quad
              a_{ij} = \cos(f_i, f_j)

    where :math:`f_i` is the channel-wise maximum over window i of M. Y. Liu et al., "Structured knowledge distillation
    for semantic segmentation", CVPR 2019 (its Pa).

    Two poolings go by this name. A window spans `pool` of the map's height and width if that is a share, rounded
    down, else `pool` x `pool` cells; windows do not overlap, and the last ones may be cut off by the border. So:

    ========================  =======================  =============
    pool                      map                      nodes M
    ========================  =======================  =============
    0.5, as published         65 x 65 (any odd sides)  3 x 3 = 9, those at the far border one cell thin
    0.5                       64 x 64 (any even)       2 x 2 = 4
    0.35                      64 x 64, 64 x 128        3 x 3 = 9
    2, elsewhere              64 x 64                  32 x 32 = 1024
    ========================  =======================  =============

    The published 9 nodes come from sides of 65 cells. The N M^2 similarities are compared by chunks of rows: beside the
    nodes, memory holds three maps of 4 million similarities (16 MB each in float32) at a time, or of one row if that is
    more, whatever M is. The gradient can't be differentiated again.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        pool: a float in (0, 1), the share of the map, or an int >= 1, the cells of a side.

    Returns:
        A scalar in float32; zero where there is one node alone. A node of zeros is similar to nothing.

    Raises:
        ValueError: for a pool out of range.
    """
    _check_pool(pool)
    student, teacher = comparable(student, teacher)
    ours, theirs = _nodes(student, pool), _nodes(teacher, pool)
    images, nodes, _ = ours.shape
    with no_autocast(ours):
        total: Tensor = _RowError.apply(ours, theirs, max(1, ENTRIES // (images * nodes)))
    return total / (images * nodes**2)


class Pairwise(MapTerm):
    """`pairwise` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, a pool out of range, or a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self, weight: float = 1.0, pool: float = 0.5, tap: str = "head", schedule: WeightSchedule | None = None
    ) -> None:
        super().__init__(weight, tap, schedule)
        _check_pool(pool)
        self.pool = pool

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return pairwise(*self.maps(student, teacher), pool=self.pool)
