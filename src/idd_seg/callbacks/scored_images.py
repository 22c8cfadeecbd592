"""Many held-out images in small with their masks and scores, one file a run: of these a report takes what it shows."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from idd_seg.callbacks.sample_gallery_data import IGNORED, SPLIT, fit, palette_image, spread
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.pixels import viewable
from idd_seg.distillation.module import Distiller
from idd_seg.errors import printable
from idd_seg.metrics.confusion import ConfusionMatrix, scores
from idd_seg.ops.upsample import predict, whole_view

FILE = "scored.zip"
FORMAT = 1
WIDTH = 320  # of the pictures, at most
QUALITY = 80  # of the JPEGs


@torch.no_grad()
def write_scored(folder: Path, module: Distiller, data: SegmentationDataModule, number: int) -> Path | None:
    """Write `scored.zip` for so many held-out images, the same ones for every run of a data set; None for none.

    It holds `scored.json`: the split, its `length`, and for each image its name, the mIoU of student and teacher at the
    label's own size (over the classes in truth or mask), and the names of image, truth and masks in the archive.

    Raises:
        OSError: if it can't be written.
    """
    path = folder / FILE
    path.unlink(missing_ok=True)  # of an earlier end of the same run
    if not number:
        return None
    networks = {"student": module.student, **({} if module.teacher is None else {"teacher": module.teacher})}
    was_training = module.training
    module.eval()
    draft = path.with_name(f".{FILE}.tmp")
    try:
        # Stored: the pictures are compressed by themselves, and a reader need not fear what would unpack to gigabytes.
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            length = len(data.dataset(SPLIT))
            images = [_add(archive, index, networks, data, module.device) for index in spread(length, number)]
            content = {"format": FORMAT, "split": data.judged, "length": length, "images": images}
            archive.writestr("scored.json", json.dumps(content, ensure_ascii=False, allow_nan=False))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
        module.train(was_training)
    return path


def _add(
    archive: zipfile.ZipFile,
    index: int,
    networks: dict[str, Any],
    data: SegmentationDataModule,
    device: torch.device,
) -> dict[str, Any]:
    sample, batch = data.one(SPLIT, index, device)
    size, label = sample.label.shape, sample.label.numpy()
    entry: dict[str, Any] = {"name": printable(sample.name), "miou": {}, "image": f"{index}_image.jpg"}
    shown = Image.fromarray(viewable(sample.image.permute(1, 2, 0).numpy())).resize((size[1], size[0]))
    archive.writestr(entry["image"], _bytes(fit(shown, Image.Resampling.BOX, WIDTH), "JPEG", quality=QUALITY))
    masks = {"truth": np.where((label >= 0) & (label < data.num_classes), label, IGNORED).astype(np.uint8)}
    for name, network in networks.items():
        ids = predict([whole_view(network(batch.image).logits, size)], size)
        confusion = ConfusionMatrix(data.num_classes, data.ignore_index).to(device)
        confusion.count(ids, batch.label)
        miou = scores(confusion.counts.cpu()).miou
        entry["miou"][name] = None if miou != miou else round(miou, 6)
        masks[name] = ids[0].to(torch.uint8).cpu().numpy()
    for name, mask in masks.items():
        entry[name] = f"{index}_{name}.png"
        archive.writestr(entry[name], _bytes(_small(mask, data), "PNG"))
    return entry


def _small(ids: NDArray[np.uint8], data: SegmentationDataModule) -> Image.Image:
    return fit(palette_image(ids, data), Image.Resampling.NEAREST, WIDTH)


def _bytes(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
