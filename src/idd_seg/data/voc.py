"""`data=voc`: Pascal VOC 2012, by option with the augmented training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, read_list, require_files, require_folder
from idd_seg.data.pipeline.submission import ServerFormat


class VOC(SegmentationDataModule):
    """The images named by `ImageSets/Segmentation/<list>.txt` with their palette label maps.

    Args:
        root: the folder `VOCdevkit/VOC2012`.
        train_list: list of the training split: `train`, or `trainaug` for the augmented set.
        train_labels: folder of the training labels: `SegmentationClass`, or `SegmentationClassAug`.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "trainval", "test", "predict")
    server: ClassVar[ServerFormat] = ServerFormat(
        "results/VOC2012/Segmentation/comp6_test_cls", archive="gztar", coloured=True
    )

    def __init__(self, root: str, train_list: str, train_labels: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()
        self.train_list, self.train_labels = train_list, train_labels
        if train_list != "train":
            number = self.counts.get(train_list)
            self.counts = {k: v for k, v in self.counts.items() if k != "train"} | ({"train": number} if number else {})

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "Pascal VOC 2012: JPEGImages/, SegmentationClass/, ImageSets/Segmentation/")
        listed = {"train": self.train_list, "predict": "test"}.get(split, split)
        labels = self.root / (self.train_labels if split == "train" else "SegmentationClass")
        names = read_list(self.root / "ImageSets" / "Segmentation" / f"{listed}.txt")
        images = self.root / "JPEGImages"
        # The owner keeps the labels of the test set.
        labelled = listed != "test"
        return PairSource(
            require_files([Pair(images / f"{n}.jpg", labels / f"{n}.png" if labelled else None) for n in names])
        )
