"""Pictures and matrices of a finished run, for whoever reads its folder."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning as L
from torch import Tensor

from idd_seg.callbacks.end_of_training import EndOfTraining
from idd_seg.callbacks.sample_gallery_data import Gallery, exhibition, write
from idd_seg.callbacks.scored_images import write_scored
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.source import UInt8
from idd_seg.distillation.module import Distiller
from idd_seg.ops.validation import require_whole
from idd_seg.plotting.figures import classes_in, colourise, sample_rows, save


class SampleGallery(EndOfTraining):
    """Writes `exhibits/exhibits.json` with its pictures, and `pictures/predictions.png`, in the run folder.

    What can't be shown is a warning: the training is done, and its results are kept.

    Args:
        count: held-out images that are shown, spread over the split.
        scored: held-out images, spread over the split, that are kept small with a score each; see `scored_images`.
    """

    def __init__(self, run_dir: str, count: int = 4, scored: int = 64) -> None:
        super().__init__()
        require_whole("callbacks.sample_gallery.scored", scored, 0)
        self.run_dir, self.count, self.scored = Path(run_dir), count, scored
        self.confusion: Tensor | None = None

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Called before the module's own, which empties the matrix. The sum over the ranks is made once: the metric
        # keeps it until then.
        if isinstance(pl_module, Distiller):
            self.confusion = pl_module.confusion.compute().cpu().clone()

    def ended(self, trainer: L.Trainer, module: Distiller) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, SegmentationDataModule):
            return
        try:
            shown = exhibition(module, data, self.count, self.confusion)
            write(self.run_dir / "exhibits", shown, data)
            write_scored(self.run_dir / "exhibits", module, data, self.scored)
            save(_draw(shown, data), self.run_dir / "pictures" / "predictions.png")
        except Exception as error:
            warnings.warn(f"the run has no exhibits: {type(error).__name__}: {error}", stacklevel=1)


def _draw(shown: Gallery, data: SegmentationDataModule) -> object:
    rows = [("image", [sample.image for sample in shown.samples])]
    labels: list[UInt8] = []
    for kind in ("truth", "teacher", "student"):
        ids = [getattr(sample, kind) for sample in shown.samples]
        if ids[0] is not None:
            rows.append((kind, [colourise(one, data.palette) for one in ids]))
            labels += ids
    return sample_rows(rows, data.class_names, data.palette, classes_in(labels, data.num_classes))
