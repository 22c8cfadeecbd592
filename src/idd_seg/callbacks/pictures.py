"""Predictions on held-out images, drawn at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F

from idd_seg.bands import predict, whole_view
from idd_seg.data.base import SegmentationDataModule
from idd_seg.module import Distiller
from idd_seg.pictures import colourise, sample_rows, save


class Pictures(L.Callback):
    """Writes `pictures/predictions.png` in the run folder: image, truth, teacher (if any) and student.

    Args:
        count: number of held-out images.
    """

    def __init__(self, run_dir: str, count: int = 4) -> None:
        self.path = Path(run_dir) / "pictures" / "predictions.png"
        self.count = count

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.is_global_zero and isinstance(pl_module, Distiller) and isinstance(data, SegmentationDataModule):
            save(_draw(pl_module, data, self.count), self.path)


@torch.no_grad()
def _draw(module: Distiller, data: SegmentationDataModule, count: int) -> Any:
    networks = {"teacher": module.teacher, "student": module.student}
    columns: list[list[Any]] = []
    was_training = module.training
    module.eval()
    for index in range(min(count, len(data.dataset("val")))):
        sample, batch = data.one("val", index, module.device)
        shown = F.interpolate(sample.image[None].float(), size=sample.label.shape, mode="bilinear")[0]
        column = [shown.permute(1, 2, 0).byte().numpy(), colourise(sample.label.numpy(), data.palette)]
        column += [
            colourise(
                predict([whole_view(net(batch.image).logits, sample.label.shape)], sample.label.shape).cpu().numpy()[0],
                data.palette,
            )
            for net in networks.values()
            if net is not None
        ]
        columns.append(column)
    module.train(was_training)
    names = ["image", "truth", *(name for name, net in networks.items() if net is not None)]
    rows = [(name, [column[i] for column in columns]) for i, name in enumerate(names)]
    return sample_rows(rows, data.class_names, data.palette)
