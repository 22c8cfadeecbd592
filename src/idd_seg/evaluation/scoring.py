"""Scores and speed of a network on a split."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import track
from torch import nn

from idd_seg.data.pipeline.worker_errors import explained
from idd_seg.errors import ConfigError, DataError, NonFiniteError
from idd_seg.evaluation.inference import Inference
from idd_seg.evaluation.per_image import PerImage
from idd_seg.metrics.confusion import ConfusionMatrix, Scores, scores
from idd_seg.ops.upsample import View, predict
from idd_seg.types import Batch

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


def batches(
    data: SegmentationDataModule, split: str, device: torch.device, title: str, batch_size: int | None = None
) -> Iterator[Batch]:
    """Yield the normalised batches of a split on `device`, behind a progress bar."""
    loader = data.loader(split, batch_size=batch_size)
    with explained():
        for batch in track(loader, description=title, total=len(loader)):
            yield data.on_device(batch, device)


def _views(network: nn.Module, inference: Inference, batch: Batch) -> list[View]:
    """Show a batch to a network.

    Raises:
        NonFiniteError: if its logits can't be compared: NaN would be taken for the first class.
    """
    views = inference.views(network, batch.image, batch.label.shape[-2:])
    # A class that a network does not know may have -inf; the maximum is NaN where any is.
    if not all(bool(patch.logits.amax() < float("inf")) for view in views for patch in view):
        raise NonFiniteError(
            f"the network's logits are not finite on {', '.join(batch.names)}: its weights or the statistics of its "
            "BatchNorm went bad in training, or the picture's values overflow its precision"
        )
    return views


@torch.no_grad()
def evaluate(
    network: nn.Module,
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    title: str = "evaluate",
    inference: Inference | None = None,
    per_image: PerImage | None = None,
) -> Scores:
    """Return the scores of a network over a split; see `confusion_of`."""
    return scores(confusion_of(network, data, split, device, title, inference, per_image))


@torch.no_grad()
def confusion_of(
    network: nn.Module,
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    title: str = "evaluate",
    inference: Inference | None = None,
    per_image: PerImage | None = None,
) -> torch.Tensor:
    """Return one confusion matrix (K, K) of a network over a split, at the labels' own size: rows truth.

    Args:
        per_image: is given the matrix of each picture, which are then shown one by one.

    Raises:
        DataError: if the owner keeps the labels of the split.
        NonFiniteError: if the network gives NaN.
    """
    if not data.labelled(split):
        raise DataError(
            f"data={data.name} has no labels for the split '{split}'"
            + ("; submit=true writes the files for the owner's server" if data.server else "")
        )
    network, inference = network.to(device).eval(), inference or Inference()
    confusion = ConfusionMatrix(data.num_classes, data.ignore_index).to(device)
    for batch in batches(data, split, device, title, 1 if per_image is not None else None):
        before = confusion.counts.clone()
        confusion.update(_views(network, inference, batch), batch.label)
        if per_image is not None:
            per_image.add(batch.names[0], (confusion.counts - before).cpu())
    return confusion.compute()


@torch.no_grad()
def submit(
    network: nn.Module,
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    folder: Path,
    inference: Inference | None = None,
) -> Path:
    """Write a network's predictions as the data set's server takes them, and return the archive.

    Raises:
        ConfigError: if the data set has no server.
    """
    if data.server is None:
        raise ConfigError(f"data={data.name} has no server that takes predictions; submit=true is for those that have")
    network, inference = network.to(device).eval(), inference or Inference()
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier submission
    for batch in batches(data, split, device, f"predict {data.name} {split}"):
        size = batch.label.shape[-2:]
        predicted = predict(_views(network, inference, batch), size).to(torch.uint8).cpu().numpy()
        for name, ids in zip(batch.names, predicted, strict=True):
            data.server.write(folder, name, ids, data.palette)
    return Path(shutil.make_archive(str(folder), data.server.archive, folder))


@torch.no_grad()
def images_per_second(network: nn.Module, image: torch.Tensor, repeats: int = 5) -> float:
    """Return the median speed of the network alone on a normalised batch (N, 3, H, W), after one warm-up."""
    network(image)
    times = []
    for _ in range(repeats):
        _wait(image.device)
        start = time.perf_counter()
        network(image)
        _wait(image.device)
        times.append(time.perf_counter() - start)
    return len(image) / sorted(times)[repeats // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
