"""`data=ade20k`: the scene parsing benchmark's 150 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, pair_by_name, require_folder, require_images

FOLDERS = {"train": "training", "val": "validation"}
TEST = Path("release_test") / "testing"


class ADE20K(SegmentationDataModule):
    """Pairs `images/<folder>/NAME.jpg` and `annotations/<folder>/NAME.png` of `ADEChallengeData2016`.

    Args:
        root: holds `images/` and `annotations/`; for the splits `test` and `predict`, which have no labels, also
            `release_test/testing/`.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "ADEChallengeData2016: images/, annotations/")
        if split not in FOLDERS:
            found = require_images(self.root / TEST, what="photographs of the test split")
            return PairSource([Pair(path, None) for path in found])
        folder = FOLDERS[split]
        return PairSource(pair_by_name(self.root / "images" / folder, self.root / "annotations" / folder))
