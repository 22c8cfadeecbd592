"""Scores and speed of a network on a split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from idd_seg.data.base import SegmentationDataModule
from idd_seg.errors import ConfigError
from idd_seg.metrics import ConfusionMatrix, Scores, scores
from idd_seg.types import Batch


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; `auto` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name} can't be used here ({reason}); device=auto takes what there is") from error
    return device


def batches(data: SegmentationDataModule, split: str, device: torch.device, title: str) -> Iterator[Batch]:
    """Yield the normalised batches of a split on `device`, behind a progress bar."""
    loader = data.loader(split)
    for batch in track(loader, description=title, total=len(loader)):
        yield data.on_device(batch, device)


def predict(logits: Tensor, size: Sequence[int]) -> Tensor:
    """(N, K, h, w) logits -> (N, *size) class ids."""
    return F.interpolate(logits.float(), size=tuple(size), mode="bilinear", align_corners=False).argmax(1)


@torch.no_grad()
def evaluate(
    network: nn.Module, data: SegmentationDataModule, split: str, device: torch.device, title: str = "evaluate"
) -> Scores:
    """Return the scores of a network over a split: one confusion matrix, at the labels' own size."""
    network = network.to(device).eval()
    confusion = ConfusionMatrix(data.num_classes, data.ignore_index).to(device)
    for batch in batches(data, split, device, title):
        confusion.update(network(batch.image).logits, batch.label)
    return scores(confusion.compute())


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
