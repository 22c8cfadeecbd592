"""`data=shapes`: scenes generated in the workers, nothing on disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.source import Files, Item
from idd_seg.data.scene import draw_scene
from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_whole

SPLITS = ("train", "val", "test")
RECIPE = 3  # to be raised when the scenes change: caches hold the old ones


class ShapesSource:
    """Scenes that depend on (seed, split, index) alone.

    Args:
        split: `train`, `val` or `test`; each has scenes of its own.
        length: number of scenes.
        size: (height, width) in pixels, at least 32 a side.

    Raises:
        ConfigError: for a size or length out of range.
    """

    def __init__(self, seed: int, split: str, length: int, size: tuple[int, int]) -> None:
        require_whole("data.scene_seed", seed, 0, error=ConfigError)
        if min(size) < 32:
            raise ConfigError(f"data.size: scenes need at least 32 pixels a side, got {list(size)}")
        require_whole(f"data.{split}_length", length, 1, 2**31 - 1, error=ConfigError)
        self.seed, self.split, self.length, self.size = seed, split, length, size

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"shapes:{self.seed}/{self.split}/{index}"

    def key(self, index: int) -> str:
        return f"{self.name(index)}/{self.size[0]}x{self.size[1]}/{RECIPE}"

    def files(self, index: int) -> Files:
        """Return nothing: scenes are made."""
        return None, None

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        image, label = draw_scene(rng, *self.size)
        return Item(image, label, self.name(index))


class Shapes(SegmentationDataModule):
    """Generated scenes of any size and number; see docs/shapes.md."""

    splits = SPLITS

    def __init__(
        self,
        size: tuple[int, int],
        scene_seed: int,
        train_length: int,
        val_length: int,
        test_length: int,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.size, self.scene_seed = (int(size[0]), int(size[1])), scene_seed
        self.lengths = {"train": train_length, "val": val_length, "test": test_length}

    def make_source(self, split: str) -> ShapesSource:
        return ShapesSource(self.scene_seed, split, self.lengths[split], self.size)
