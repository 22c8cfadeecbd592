"""How long a training will take, said before its first step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lightning as L
import torch
from torch import nn

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.distillation.module import Distiller
from idd_seg.types import Batch

BACKWARD = 2.0  # a backward pass, in forward passes
LEAST = 30.0  # seconds of a training that is worth a word
LEAST_STEPS = 20  # a training of fewer has ended before it is estimated


class Duration(L.Callback):
    """Times both networks and the loading on one picture, and says what follows for the whole training.

    Neither weights, averages nor random numbers change. What the terms compute comes on top.

    Args:
        compiled: the networks are compiled at their first step: to time them would take longer than it tells.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self.compiled = compiled

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data, left = getattr(trainer, "datamodule", None), trainer.max_steps - trainer.global_step
        if not isinstance(pl_module, Distiller) or not isinstance(data, SegmentationDataModule):
            return
        if not trainer.is_global_zero or left < LEAST_STEPS or self.compiled:
            return
        with trainer.precision_plugin.forward_context(), as_in_use(pl_module.student):
            step, validation = step_seconds(pl_module, data, trainer), validation_seconds(pl_module, data, trainer)
        rounds = max(1, int(left * trainer.accumulate_grad_batches / interval_of(trainer)))
        whole = left * step + rounds * validation
        if whole >= LEAST:
            parts = f"{left} steps of {step:.2g} s, {rounds} validations of {validation:.2g} s"
            print(f"this training takes about {spoken(whole)}, and what its terms add: {parts}", flush=True)


def interval_of(trainer: L.Trainer) -> float:
    """Return the number of batches between two validations; a fraction is one of an epoch's."""
    interval = trainer.val_check_interval or 1.0
    return interval if isinstance(interval, int) else max(1.0, interval * trainer.num_training_batches)


def step_seconds(module: Distiller, data: SegmentationDataModule, trainer: L.Trainer) -> float:
    """Return the estimated seconds of a training step: loading, both forward passes and the backward one."""
    one, loading = _loaded(data, "train", module.device)
    image = one.image.expand(data.batch_size, -1, -1, -1).contiguous()
    student = timed(lambda: module.student(image), module.device)
    computing = (1 + BACKWARD) * student
    if (teacher := module.teacher) is not None and any(term.needs_teacher for term in module.each_term().values()):
        computing += (
            timed(lambda: teacher(image), module.device)
            * module.teacher_times.asked(trainer.max_steps)
            / trainer.max_steps
        )
    waiting = loading * data.batch_size
    batch = max(computing, waiting / data.num_workers) if data.num_workers else computing + waiting
    return batch * trainer.accumulate_grad_batches


def validation_seconds(module: Distiller, data: SegmentationDataModule, trainer: L.Trainer) -> float:
    """Return the estimated seconds of one validation, of which this process has a part."""
    one, loading = _loaded(data, "val", module.device)
    each = timed(lambda: module.student(one.image), module.device) + loading
    return each * sum(int(batches) for batches in trainer.num_val_batches) * data.eval_batch_size


def _loaded(data: SegmentationDataModule, split: str, device: torch.device) -> tuple[Batch, float]:
    """Return one picture as a batch, and the seconds that it took, the fewest of two: files may be cached."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        _, batch = data.one(split, 0, device)
        seconds.append(time.perf_counter() - start)
    return batch, min(seconds)


@torch.no_grad()
def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, the fewer of two."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


@contextmanager
def as_in_use(network: nn.Module) -> Iterator[None]:
    """Let a network be as it is in use, and give each of its parts its mode back."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def spoken(seconds: float) -> str:
    """Say a duration in the unit that a person would take."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
