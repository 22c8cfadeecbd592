"""Scores picture by picture: which are the worst, and of which classes."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from idd_seg.metrics.confusion import Scores, scores

FILE = "per_image.csv"


class PerImage:
    """The scores of each picture of a split.

    A picture's mIoU is the mean over the classes that are in its truth or in its prediction. The mean over the pictures
    is another number than the split's mIoU, which counts the pixels of all pictures together.

    Args:
        class_names: K names, the columns.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.rows: list[tuple[str, Scores, int]] = []

    def add(self, name: str, confusion: Tensor) -> None:
        """Take the confusion matrix (K, K) of a picture."""
        self.rows.append((name, scores(confusion), int(confusion.sum())))

    def worst(self, number: int) -> list[tuple[str, Scores, int]]:
        """Return so many pictures of the lowest mIoU; those without a labelled pixel are no judgement and left out."""
        judged = [row for row in self.rows if not math.isnan(row[1].miou)]
        return sorted(judged, key=lambda row: row[1].miou)[:number]

    def write(self, folder: Path) -> Path:
        """Write a row a picture in percent, the worst first; cells of classes that are not there stay empty."""
        path = folder / FILE
        ordered = self.worst(len(self.rows))
        rest = [row for row in self.rows if math.isnan(row[1].miou)]
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["picture", "mIoU", "accuracy", "labelled pixels", *self.class_names])
            for name, found, pixels in [*ordered, *rest]:
                numbers = [_percent(value) for value in (found.miou, found.accuracy)]
                rows.writerow([name, *numbers, pixels, *map(_percent, found.iou)])
        return path


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"
