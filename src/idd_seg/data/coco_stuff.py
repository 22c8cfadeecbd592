"""`data=coco_stuff`: COCO-Stuff 164k, things and stuff of COCO 2017."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, pair_by_name, require_folder, require_images

FOLDERS = {"train": "train2017", "val": "val2017"}


class COCOStuff(SegmentationDataModule):
    """Pairs `images/<split>2017/NAME.jpg` and `annotations/<split>2017/NAME.png` (the owner's pixel maps).

    Args:
        root: holds `images/` and `annotations/`; for the splits `test` and `predict`, which have no labels, also
            `images/test2017/`.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "COCO-Stuff: images/, annotations/")
        if split not in FOLDERS:
            return PairSource([Pair(path, None) for path in require_images(self.root / "images" / "test2017")])
        folder = FOLDERS[split]
        return PairSource(pair_by_name(self.root / "images" / folder, self.root / "annotations" / folder))
