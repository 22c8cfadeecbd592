"""Cross-entropy against the ground truth, with the auxiliary head's share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from idd_seg.distributed.collectives import share_of_mean
from idd_seg.losses.ops.chunked_cross_entropy import summed_cross_entropy, true_probabilities
from idd_seg.losses.ops.class_weights import MEDIAN_FREQUENCY, ClassCounts, check_class_weights, median_frequency
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term
from idd_seg.ops.validation import require_at_least
from idd_seg.types import Batch, Outputs


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy over the pixels that count, at the labels' resolution.

    With several processes, over those of all of them: the values of the processes average to that mean.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.
        class_weights: (K,) >= 0; the mean is then one of weights, as in torch.nn.functional. None is 1 for each class.
        label_smoothing: share of the target that is spread over all classes, 0 to 1 (C. Szegedy et al., CVPR 2016).

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every pixel is ignored.
    """
    options = {"class_weights": class_weights, "smoothing": label_smoothing}
    total = summed_cross_entropy(logits, labels, ignore_index, **options)  # type: ignore[arg-type]
    valid = labels != ignore_index
    if class_weights is None:
        return share_of_mean(total, valid.sum())
    return share_of_mean(total, class_weights.to(total)[torch.where(valid, labels, 0)].mul(valid).sum())


@torch.no_grad()
def hard_pixels(logits: Tensor, labels: Tensor, *, probability: float, least: float, ignore_index: int = 255) -> Tensor:
    """Return the labels with easy pixels ignored: online hard example mining (A. Shrivastava et al., CVPR 2016).

    Of the pixels that count those stay whose own class is less probable than `probability`, and of the others as many
    of the least probable ones as make up a share `least` of the batch, in each process by itself.

    Args:
        logits: (N, K, h, w), brought to (H, W) bilinearly.
        labels: (N, H, W) int64 in 0..K-1, or `ignore_index`.
        probability, least: 0 to 1.
    """
    found = true_probabilities(logits, labels, ignore_index)
    counted = found[labels != ignore_index]
    kept = round(least * counted.numel())
    bound = found.new_tensor(probability)
    if kept:
        bound = torch.maximum(bound, counted.kthvalue(kept).values.nextafter(bound.new_tensor(2.0)))
    return torch.where(found < bound, labels, ignore_index)


class CrossEntropy(Term):
    """`cross_entropy` of the student's logits plus `auxiliary` times that of its auxiliary head (0.4 in PSPNet).

    Args:
        class_weights: a number for each class; `median_frequency`, by the training labels (D. Eigen and R. Fergus, ICCV
            2015); None counts all pixels alike.
        label_smoothing: share of the target that is spread over all classes, 0 to below 1.
        ohem: hard pixels alone: those whose own class is less probable than this, 0 to 1; None takes all pixels.
        ohem_least: with `ohem`, the share of the pixels that always stays.

    Raises:
        ValueError: if the weight or `auxiliary` is negative, or another option out of range.
    """

    label_use = "truth"

    needs_teacher: ClassVar[bool] = False

    def __init__(
        self,
        weight: float = 1.0,
        auxiliary: float = 0.4,
        ignore_index: int = 255,
        class_weights: Sequence[float] | str | None = None,
        label_smoothing: float = 0.0,
        ohem: float | None = None,
        ohem_least: float = 0.0625,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_at_least("auxiliary", auxiliary, 0)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be a number from 0 to below 1, got {label_smoothing}")
        if ohem is not None and not 0 < ohem <= 1:
            raise ValueError(f"ohem must be a probability above 0, up to 1, or null, got {ohem}")
        if not 0 <= ohem_least <= 1:
            raise ValueError(f"ohem_least must be a share from 0 to 1, got {ohem_least}")
        self.auxiliary = float(auxiliary)
        self.ignore_index = ignore_index
        self.class_weights = check_class_weights(class_weights)
        self.label_smoothing, self.ohem, self.ohem_least = float(label_smoothing), ohem, float(ohem_least)

    def bind_classes(self, num_classes: int, counts: Callable[[], ClassCounts]) -> None:
        if self.class_weights == MEDIAN_FREQUENCY:
            self.class_weights = median_frequency(counts())
        elif isinstance(self.class_weights, Tensor) and len(self.class_weights) != num_classes:
            raise ValueError(
                f"class_weights are {len(self.class_weights)} numbers, and there are {num_classes} classes"
            )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        loss = self._of(student.logits, batch.label)
        if student.auxiliary is not None and self.auxiliary:
            loss = loss + self.auxiliary * self._of(student.auxiliary, batch.label)
        return loss

    def _of(self, logits: Tensor, labels: Tensor) -> Tensor:
        if isinstance(self.class_weights, str):
            raise ValueError("class_weights=median_frequency needs the training labels: call bind_classes first")
        if self.ohem is not None:
            options = {"probability": self.ohem, "least": self.ohem_least}
            labels = hard_pixels(logits, labels, ignore_index=self.ignore_index, **options)
        return cross_entropy(
            logits,
            labels,
            ignore_index=self.ignore_index,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
        )
