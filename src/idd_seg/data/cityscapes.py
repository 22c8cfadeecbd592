"""`data=cityscapes`: street scenes of fifty cities, fine annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, require_files, require_folder, require_images
from idd_seg.data.pipeline.submission import ServerFormat
from idd_seg.errors import ConfigError, DataError
from idd_seg.ops.validation import require_choice

IMAGE, LABEL = "_leftImg8bit", "_gtFine_"
Kind = Literal["labelIds", "labelTrainIds"]
# The owner's ids of the 19 classes that are trained and judged.
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


class Cityscapes(SegmentationDataModule):
    """Pairs `leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `gtFine/<split>/<city>/*_gtFine_<labels>.png`.

    Args:
        root: holds `leftImg8bit/` and `gtFine/`.
        labels: `labelIds`, mapped to the 19 classes; or `labelTrainIds`, made by the owner's scripts.

    Raises:
        ConfigError: for another kind of labels.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")
    server: ClassVar[ServerFormat] = ServerFormat("", drop=IMAGE, suffix="_pred_labelIds.png", values=IDS)

    def __init__(self, root: str, labels: Kind = "labelIds", **common: Any) -> None:
        require_choice("data.labels", labels, get_args(Kind), error=ConfigError)
        if labels == "labelTrainIds":
            common = {**common, "label_values": None, "ignored": [255]}
        super().__init__(**common)
        self.root, self.kind = Path(root).expanduser(), labels

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "Cityscapes: leftImg8bit/, gtFine/")
        # The owner keeps the labels of the test set; what lies in gtFine/test is void.
        labelled = split in ("train", "val")
        folder = "test" if split == "predict" else split
        images, labels = self.root / "leftImg8bit" / folder, self.root / "gtFine" / folder
        found = [path for path in require_images(images, (".png",)) if path.stem.endswith(IMAGE)]
        if not found:
            raise DataError(f"'{images}' holds no files named CITY_SEQUENCE_FRAME{IMAGE}.png")
        if labelled:
            require_folder(labels, "Cityscapes' fine annotations")

        def label_of(path: Path) -> Path:
            return labels / path.relative_to(images).with_name(f"{path.stem.removesuffix(IMAGE)}{LABEL}{self.kind}.png")

        return PairSource(require_files([Pair(path, label_of(path) if labelled else None) for path in found]))
