"""Scores over a whole data set, as the benchmarks' owners define them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from idd_seg.ops.upsample import View, class_chunks, whole_view


@dataclass(frozen=True)
class Scores:
    """Scores in [0, 1]: mean IoU over the classes that occur, IoU of each (NaN if it never does), pixel accuracy."""

    miou: float
    iou: list[float]
    accuracy: float

    def as_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return plain values for JSON; an absent class has None."""
        iou = {n: (None if v != v else v) for n, v in zip(class_names, self.iou, strict=True)}
        miou, accuracy = (None if v != v else v for v in (self.miou, self.accuracy))
        return {"miou": miou, "pixel_accuracy": accuracy, "iou": iou}


class ConfusionMatrix(Metric):
    """One confusion matrix summed over the data set (and over ranks): rows truth, columns prediction.

    Args:
        num_classes: K.
        ignore_index: label value whose pixels are not counted.
    """

    full_state_update = False

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.counts: Tensor
        self.add_state("counts", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor | Sequence[View], labels: Tensor) -> None:
        """Count (N, K, h, w) logits, brought to the labels' size bilinearly, against (N, H, W) labels.

        Instead of logits also the views of windows, scales and mirror images; see `bands`.
        """
        views = [whole_view(logits, labels.shape[-2:])] if isinstance(logits, Tensor) else logits
        for top, ids in class_chunks(views, labels.shape[-2:]):
            self.count(ids, labels[:, top : top + ids.shape[1]])

    def count(self, predicted: Tensor, labels: Tensor) -> None:
        """Count (N, H, W) predicted class ids against labels; an extra row takes the ignored pixels."""
        k = self.num_classes
        truth = torch.where(labels == self.ignore_index, k, labels)
        # Half as wide as int64, and wide enough for more classes than a label file can hold.
        cells = torch.bincount((truth.int() * k + predicted).flatten(), minlength=(k + 1) * k)
        self.counts += cells.view(k + 1, k)[:k]

    def compute(self) -> Tensor:
        """Return the counts (K, K) int64."""
        return self.counts


def scores(confusion: Tensor) -> Scores:
    """IoU = true positives / (truth + predicted - true positives), from a (K, K) confusion matrix.

    Classes in neither truth nor prediction are left out of the mean, as in the Cityscapes scripts.
    """
    counts = confusion.double()
    hits = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hits
    iou = torch.where(union > 0, hits / union, torch.full_like(hits, float("nan")))
    total = counts.sum()
    return Scores(
        miou=float(iou.nanmean()),
        iou=[float(v) for v in iou],
        accuracy=float(hits.sum() / total) if total > 0 else float("nan"),
    )
