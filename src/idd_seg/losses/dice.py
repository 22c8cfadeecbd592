"""Overlap of each class's probabilities with its labels: a class of few pixels counts as much as one of many."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from idd_seg.distributed.collectives import differentiable_sum_over_ranks
from idd_seg.losses.ops.overlaps import class_overlaps
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term
from idd_seg.types import Batch, Outputs


def dice(logits: Tensor, labels: Tensor, *, ignore_index: int = 255) -> Tensor:
    r"""One minus the soft Dice coefficient, mean over the classes that occur in the batch, at the labels' resolution.

    .. math:: 1 - \frac{1}{|K'|} \sum_{k \in K'} \frac{2 \sum_p P_k(p) [y(p) = k]}{\sum_p P_k(p) + \sum_p [y(p) = k]}

    over all pixels p of the batch that count; after F. Milletari et al. (3DV 2016), without their squares.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.

    Returns:
        A scalar from 0 to 1 in float32; exactly zero, with a gradient path, where every pixel is ignored. With several
        processes, of the batch of all of them.
    """
    sums = torch.stack(class_overlaps(logits, labels, ignore_index))
    overlap, mass, counted = differentiable_sum_over_ranks(sums)
    occurs = counted > 0
    missing = 1 - 2 * overlap / torch.where(occurs, mass + counted, 1)
    mean: Tensor = (missing * occurs).sum() / occurs.sum().clamp(min=1)
    return mean


class Dice(Term):
    """`dice` of the student's logits against the labels, beside cross-entropy.

    Raises:
        ValueError: if the weight is negative.
    """

    label_use = "truth"

    needs_teacher: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0, ignore_index: int = 255, schedule: WeightSchedule | None = None) -> None:
        super().__init__(weight, schedule)
        self.ignore_index = ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return dice(student.logits, batch.label, ignore_index=self.ignore_index)
