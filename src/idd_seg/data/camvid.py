"""`data=camvid`: street scenes, in the folders of the public SegNet release."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, pair_by_name, require_folder, require_images


class CamVid(SegmentationDataModule):
    """Pairs `<root>/<split>/NAME.{png,jpg}` and `<root>/<split>annot/NAME.png`."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "CamVid: train/, trainannot/, val/, valannot/")
        if split == "predict":
            return PairSource([Pair(path, None) for path in require_images(self.root / "test")])
        return PairSource(pair_by_name(self.root / split, self.root / f"{split}annot"))
