"""The bare step: the networks of a configuration, a batch in memory, and nothing else."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from idd_seg.benchmarks.stopwatch import Silent, Stopwatch
from idd_seg.config.instantiate import make
from idd_seg.config.restore import BARE
from idd_seg.models.segmenter import Segmenter
from idd_seg.types import Batch


def networks_of(cfg: DictConfig) -> tuple[Segmenter, Segmenter]:
    """Return student and teacher of a configuration, with the same weights each time."""
    torch.manual_seed(0)
    student = make(OmegaConf.merge(cfg.student, {"pretrained": False}), "student")
    node = OmegaConf.create(OmegaConf.merge(cfg.teacher.model, BARE), parent=cfg.teacher)
    return student, make(node, "teacher.model").eval().requires_grad_(False)


class Pictures(L.LightningDataModule):
    """A batch of noise and large regions that is loaded again and again, as a loader would give it."""

    def __init__(self, images: int, size: tuple[int, int], classes: int, device: torch.device) -> None:
        super().__init__()
        self.watch: Stopwatch | None = None
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(256, (images, 3, *size), dtype=torch.uint8, generator=generator)
        coarse = torch.randint(classes, (images, 1, 6, 6), generator=generator).float()
        label = F.interpolate(coarse, size=size)[:, 0].to(torch.uint8)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(images, 1)
        self.loaded = Batch(image, label, box, ["benchmark"] * images)
        if device.type == "cuda":
            self.loaded = self.loaded.pin_memory()
        self.batch = self.on_after_batch_transfer(self.loaded.to(device), 0)

    def train_dataloader(self) -> Any:
        return _Forever(self.loaded)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        with (self.watch or Silent(device)).within("data"):
            return batch.to(device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        with (self.watch or Silent(batch.image.device)).within("data"):
            return self._normalised(batch)

    def _normalised(self, batch: Batch) -> Batch:
        image = batch.image.float().div_(255).sub_(0.45).div_(0.225)
        return Batch(image, batch.label.long(), batch.box, batch.names)


class _Forever:
    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Any:
        while True:
            yield self.batch


class Bare:
    """The teacher's forward pass without gradient and a step of the student by cross-entropy, and nothing else."""

    def __init__(self, cfg: DictConfig, batch: Batch, device: torch.device) -> None:
        self.student, self.teacher = networks_of(cfg)
        self.student.to(device).train()
        self.teacher.to(device)
        self.batch = batch
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def _loss(self, logits: torch.Tensor) -> torch.Tensor:
        size = self.batch.label.shape[-2:]
        wide = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return F.cross_entropy(wide, self.batch.label, ignore_index=255)

    def step(self, clock: Stopwatch) -> None:
        """Take one step."""
        with clock.within("teacher"), torch.no_grad():
            self.teacher(self.batch.image)
        with clock.within("student"):
            outputs = self.student(self.batch.image)
        with clock.within("terms"):
            loss = self._loss(outputs.logits)
            if outputs.auxiliary is not None:
                loss = loss + 0.4 * self._loss(outputs.auxiliary)
        with clock.within("backward"):
            torch.autograd.backward(loss)
        with clock.within("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def parts(self, steps: int, clock: Stopwatch) -> dict[str, float]:
        """Return seconds a step by part."""
        for _ in range(steps):
            self.step(clock)
        return {name: seconds / steps for name, seconds in clock.seconds.items()}
