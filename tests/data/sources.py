"""Photographs whose content says where each pixel came from, and a data module around any source."""

from __future__ import annotations

from typing import Any

import numpy as np

from idd_seg.data.base import SegmentationDataModule
from idd_seg.data.source import Item, Source


class Coordinates:
    """Red is the column and green the row; the label is the column or the row. Neither side above 200 pixels."""

    def __init__(self, height: int, width: int, length: int = 8, label: str = "column") -> None:
        self.height, self.width, self.length, self.label = height, width, length, label

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        row, column = np.mgrid[: self.height, : self.width].astype(np.uint8)
        image = np.stack([column, row, np.full_like(row, 128)], axis=-1)
        return Item(image, column if self.label == "column" else row, f"coordinates/{index}")


def settings(num_classes: int, **changes: Any) -> dict[str, Any]:
    """Return what every data module needs."""
    return {
        "name": "test",
        "num_classes": num_classes,
        "class_names": [f"class {i}" for i in range(num_classes)],
        "palette": [[i, i, i] for i in range(num_classes)],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "batch_size": 2,
        **changes,
    }


class OneSource(SegmentationDataModule):
    """The same source for every split."""

    def __init__(self, source: Source, **common: Any) -> None:
        super().__init__(**common)
        self.source = source

    def make_source(self, split: str) -> Source:
        return self.source
