"""Score keeping on one core: from coarse logits to a confusion matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor

from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import peak_device_memory, peak_memory, time_all
from idd_seg.metrics.confusion import ConfusionMatrix

SIZE, STRIDE = (1024, 2048), 8


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Compare our confusion matrix with upsampling, `argmax` and a masked `bincount`, at Cityscapes' size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for classes, bar in ((19, 3.0), (150, None)):
        what = f"1024 x 2048, {classes} classes, stride {STRIDE}"
        cases = {"ours": _ours(classes, device), "full": _full(classes, device)}
        found = time_all(cases, max(3, cfg.repeats // 2), warmup=1, device=device)
        ratio = found["full"].median / found["ours"].median
        rows.append(Row(f"{what}: time", str(found["ours"]), f"full size: {found['full']}", ratio, bar=bar))
        if device.type == "cuda":
            ours, full = (peak_device_memory(case, device) for case in cases.values())
        else:
            ours, full = peak_memory(_ours, classes, device), peak_memory(_full, classes, device)
        third = None if bar is None else 1 / 3
        against = f"full size: {full / 1e6:.0f} MB"
        rows.append(Row(f"{what}: memory", f"{ours / 1e6:.0f} MB", against, ours / full, better="less", bar=third))
    torch.set_num_threads(threads)
    return rows


def _sample(classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, SIZE[0] // STRIDE, SIZE[1] // STRIDE, generator=generator)
    labels = torch.randint(classes + 1, (1, *SIZE), generator=generator)
    return logits.to(device), torch.where(labels == classes, 255, labels).to(device)


def _ours(classes: int, device: torch.device) -> Callable[[], object]:
    logits, labels = _sample(classes, device)
    confusion = ConfusionMatrix(classes).to(device)
    return lambda: confusion.update(logits, labels)


def _full(classes: int, device: torch.device) -> Callable[[], object]:
    logits, labels = _sample(classes, device)

    def count() -> Tensor:
        full = F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)
        predicted, counted = full.argmax(1), labels != 255
        return torch.bincount(labels[counted] * classes + predicted[counted], minlength=classes**2)

    return count
