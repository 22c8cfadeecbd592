"""What the tests of data share: small pictures, and photographs whose content says where each pixel came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.source import Item, Source

# A space, letters beyond ASCII, several dots.
NAMES = ("0001 street scene", "0002 Größe 街", "0003.frame.tail")
SIZE = (12, 16)  # height, width


def photograph(seed: int) -> Image.Image:
    """Return a soft picture, so that JPEG changes it little."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), np.uint8)
    return Image.fromarray(colours).resize(SIZE[::-1], Image.Resampling.BICUBIC)


def label_map(seed: int, num_classes: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, num_classes, SIZE).astype(np.uint8)


class Coordinates:
    """Red is the column and green the row; the label is the column or the row. Neither side above 200 pixels."""

    def __init__(self, height: int, width: int, length: int = 8, label: str = "column") -> None:
        self.height, self.width, self.length, self.label = height, width, length, label

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"coordinates/{index}"

    def key(self, index: int) -> str:
        return f"{self.name(index)}/{self.height}x{self.width}/{self.label}"

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
