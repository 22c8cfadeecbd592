"""What a finished run shows of itself: held-out images with both networks' predictions, and matrices, as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.dataset import collate
from idd_seg.data.pipeline.pixels import viewable
from idd_seg.data.pipeline.source import UInt8
from idd_seg.distillation.module import Distiller
from idd_seg.errors import printable
from idd_seg.evaluation.probes import class_distances
from idd_seg.losses.ops.grid import resize_like
from idd_seg.losses.position import Position
from idd_seg.ops import colours
from idd_seg.ops.upsample import predict, whole_view
from idd_seg.types import Batch, Outputs

FORMAT = 1
SPLIT = "val"
WIDTH = 640  # of the pictures, at most
IGNORED = 255  # in the palettes of the PNGs


@dataclass(frozen=True)
class GallerySample:
    """A held-out image, all at the size of its label: RGB (H, W, 3) uint8, and class ids (H, W), IGNORED elsewhere."""

    name: str
    image: UInt8
    truth: UInt8
    student: UInt8
    teacher: UInt8 | None


@dataclass(frozen=True)
class PositionMaps:
    """What the position term's reader reads from the student, and the truth: (T, h, w), mean over the exhibits."""

    targets: tuple[str, ...]
    student: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Gallery:
    """All that is shown of a run.

    Attributes:
        distances: by network, (K, K) relative to the mean, NaN for absent classes; see `analysis.class_distances`.
        confusion: (K, K) pixels of the whole split: rows truth, columns the student's prediction; None if unknown.
        position: None without a position term.
    """

    samples: list[GallerySample]
    distances: dict[str, Tensor]
    confusion: Tensor | None
    position: PositionMaps | None


def spread(length: int, count: int) -> list[int]:
    """Return at most `count` indices spread over 0 .. length - 1: the same for every run of a data set."""
    return sorted(set(torch.linspace(0, length - 1, min(length, count)).long().tolist()))


@torch.no_grad()
def exhibition(module: Distiller, data: SegmentationDataModule, count: int, confusion: Tensor | None) -> Gallery:
    """Show `count` samples to student and teacher, and measure how far apart they hold the classes.

    Takes a forward pass of each network for a sample, and one for each of `module.measure_batches` held-out batches.
    """
    networks = {"student": module.student, **({} if module.teacher is None else {"teacher": module.teacher})}
    was_training = module.training
    module.eval()
    try:
        samples, position = _samples(module, data, count)
        distances = {
            name: class_distances(network, _held_out(module, data), data.num_classes, data.ignore_index)  # type: ignore[arg-type]
            for name, network in networks.items()
            if "head" in network.channels  # of a module that a program has given nothing but logits may be known
        }
    finally:
        module.train(was_training)
    return Gallery(samples, distances, confusion, position)


def _held_out(module: Distiller, data: SegmentationDataModule) -> Iterator[Batch]:
    """Yield batches spread over the split, the same whatever the number of processes: no loader of one rank's share."""
    dataset, size = data.dataset(SPLIT), data.eval_batch_size
    indices = spread(len(dataset), module.measure_batches * size)
    for start in range(0, len(indices), size):
        batch = collate([dataset[(0, index)] for index in indices[start : start + size]])
        yield data.on_device(batch, module.device)


def _samples(
    module: Distiller, data: SegmentationDataModule, count: int
) -> tuple[list[GallerySample], PositionMaps | None]:
    term = next((term for term in module.each_term().values() if isinstance(term, Position)), None)
    exhibits, readings = [], []
    for index in spread(len(data.dataset(SPLIT)), count):
        sample, batch = data.one(SPLIT, index, module.device)
        student = module.student(batch.image)
        teacher = None if module.teacher is None else module.teacher(batch.image)
        size = sample.label.shape
        label = sample.label.numpy()
        exhibits.append(
            GallerySample(
                sample.name,
                np.asarray(Image.fromarray(viewable(sample.image.permute(1, 2, 0).numpy())).resize((size[1], size[0]))),
                np.where((label >= 0) & (label < data.num_classes), label, IGNORED).astype(np.uint8),
                _classes(student, size),
                None if teacher is None else _classes(teacher, size),
            )
        )
        if term is not None and teacher is not None:
            readings.append(_reading(term, student, teacher, batch))
    return exhibits, _mean_reading(term, readings) if term is not None and readings else None


def _classes(outputs: Outputs, size: torch.Size) -> UInt8:
    return predict([whole_view(outputs.logits, size)], size)[0].to(torch.uint8).cpu().numpy()


def _reading(term: Position, student: Outputs, teacher: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    ours, _ = term.readings(student, teacher)
    size = term.reader.least(teacher.features[term.taps[0]].shape[-2:])
    return ours, term.reader.truth(batch.box, size)[0]


def _mean_reading(term: Position, readings: list[tuple[Tensor, Tensor]]) -> PositionMaps:
    # Photographs may differ in size: the first one's grid serves all.
    size = readings[0][0].shape[-2:]
    student, truth = (torch.cat([resize_like(pair[i], size) for pair in readings]).mean(0).cpu() for i in (0, 1))
    return PositionMaps(term.targets, student, truth)


def write(folder: Path, shown: Gallery, data: SegmentationDataModule) -> None:
    """Write `exhibits.json` and the pictures beside it; the JSON comes last and whole.

    Raises:
        OSError: if the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "split": data.judged,
        "class_names": data.class_names,
        "palette": [list(colour) for colour in data.palette],
        "samples": [_write_sample(folder, i, sample, data) for i, sample in enumerate(shown.samples)],
        "class_distances": {name: plain(shown.distances.get(name)) for name in ("student", "teacher")},
        "confusion": None if shown.confusion is None else shown.confusion.tolist(),
        "position": None if shown.position is None else _position(shown.position),
    }
    draft = folder / ".exhibits.json.tmp"
    draft.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(folder / "exhibits.json")


def _position(maps: PositionMaps) -> dict[str, Any]:
    return {"targets": list(maps.targets), "student": plain(maps.student), "truth": plain(maps.truth)}


def plain(values: Tensor | None) -> Any:
    """Return nested lists of four decimals; None for NaN, and for no tensor."""
    if values is None:
        return None
    rounded = np.round(values.double().numpy(), 4)
    return np.where(np.isfinite(rounded), rounded, None).tolist()  # type: ignore[call-overload]


def _write_sample(folder: Path, index: int, sample: GallerySample, data: SegmentationDataModule) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": printable(sample.name), "image": f"{index}_image.jpg"}
    fit(Image.fromarray(sample.image), Image.Resampling.BOX).save(folder / entry["image"], quality=90)
    for kind in ("truth", "student", "teacher"):
        ids = getattr(sample, kind)
        entry[kind] = None if ids is None else f"{index}_{kind}.png"
        if ids is not None:
            fit(palette_image(ids, data), Image.Resampling.NEAREST).save(folder / entry[kind])
    return entry


def palette_image(ids: NDArray[np.uint8], data: SegmentationDataModule) -> Image.Image:
    """Return class ids (H, W) as a picture with the classes' colours; what is no class is white."""
    table = np.full((256, 3), colours.IGNORED, np.uint8)
    table[: len(data.palette)] = np.array(data.palette, np.uint8)
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(table.tobytes())
    return picture


def fit(picture: Image.Image, resample: Image.Resampling, width: int = WIDTH) -> Image.Image:
    """Return a picture that is no wider than `width` pixels."""
    if picture.width <= width:
        return picture
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), resample)
