"""Cross-entropy against the ground truth, with the auxiliary head's share."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from idd_seg.distributed.collectives import share_of_mean
from idd_seg.losses.ops.chunked_cross_entropy import summed_cross_entropy
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term
from idd_seg.ops.validation import require_at_least
from idd_seg.types import Batch, Outputs


def cross_entropy(logits: Tensor, labels: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Mean cross-entropy over the pixels that count, at the labels' resolution.

    With several processes, over those of all of them: the values of the processes average to that mean.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every pixel is ignored.
    """
    total = summed_cross_entropy(logits, labels, ignore_index)
    return share_of_mean(total, (labels != ignore_index).sum())


class CrossEntropy(Term):
    """`cross_entropy` of the student's logits plus `auxiliary` times that of its auxiliary head (0.4 in PSPNet).

    Raises:
        ValueError: if the weight or `auxiliary` is negative.
    """

    label_use = "truth"

    needs_teacher: ClassVar[bool] = False

    def __init__(
        self,
        weight: float = 1.0,
        auxiliary: float = 0.4,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_at_least("auxiliary", auxiliary, 0)
        self.auxiliary = float(auxiliary)
        self.ignore_index = ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        loss = cross_entropy(student.logits, batch.label, ignore_index=self.ignore_index)
        if student.auxiliary is not None and self.auxiliary:
            side = cross_entropy(student.auxiliary, batch.label, ignore_index=self.ignore_index)
            loss = loss + self.auxiliary * side
        return loss
