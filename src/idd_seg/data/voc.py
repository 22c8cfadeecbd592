"""`data=voc`: Pascal VOC 2012."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from idd_seg.data.base import SegmentationDataModule
from idd_seg.data.files import Pair, PairSource, read_list, require_folder, require_labels


class VOC(SegmentationDataModule):
    """The images named by `ImageSets/Segmentation/<list>.txt` with their palette label maps.

    Args:
        root: the folder `VOCdevkit/VOC2012`.
        train_list: list of the training split: `train`, or `trainaug` for the augmented set.
        train_labels: folder of the training labels: `SegmentationClass`, or `SegmentationClassAug`.
    """

    def __init__(self, root: str, train_list: str, train_labels: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()
        self.lists = {"train": (train_list, train_labels), "val": ("val", "SegmentationClass")}

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "Pascal VOC 2012: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/")
        listed, labels = self.lists.get(split, (split, "SegmentationClass"))
        names = read_list(self.root / "ImageSets" / "Segmentation" / f"{listed}.txt")
        images = self.root / "JPEGImages"
        return PairSource(
            require_labels([Pair(images / f"{name}.jpg", self.root / labels / f"{name}.png") for name in names])
        )
