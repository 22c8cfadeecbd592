"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.distillation.module import Distiller
from idd_seg.distillation.teacher_cache import TeacherCache
from idd_seg.types import Batch, Outputs

PARTS = ("data", "teacher", "student", "terms", "backward", "optimizer", "rest")


class Stopwatch:
    """Adds up seconds by part; parts within a part count for themselves alone.

    Args:
        device: waited for at each change of the part, where it is a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.open: list[str] = []
        self.last = 0.0

    def _pass(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] = self.seconds.get(self.open[-1], 0.0) + now - self.last
        self.last = now

    def start(self, part: str) -> None:
        """Begin a part, within the one that is open."""
        self._pass()
        self.open.append(part)

    def stop(self) -> None:
        """End the part that was begun last."""
        self._pass()
        self.open.pop()

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Count what is done within for a part."""
        self.start(part)
        try:
            yield
        finally:
            self.stop()

    def watch(self, network: nn.Module, part: str) -> None:
        """Count a network's forward passes for a part."""
        network.register_forward_pre_hook(lambda *_: self.start(part))
        network.register_forward_hook(lambda *_: self.stop())


class Silent(Stopwatch):
    """Counts nothing, and waits for nothing."""

    def start(self, part: str) -> None: ...

    def stop(self) -> None: ...


class Watched(Distiller):
    """A Distiller whose parts are timed by `watch`, once it is given one."""

    watch: Stopwatch | None = None

    def _part(self, part: str, call: Callable[[], Any]) -> Any:
        if self.watch is None:
            return call()
        with self.watch.within(part):
            return call()

    def _ask_teacher(self, batch: Batch, cache: TeacherCache | None = None) -> Outputs | None:
        found: Outputs | None = self._part("teacher", lambda: super(Watched, self)._ask_teacher(batch, cache))
        return found

    def _compare(self, *arguments: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._part("terms", lambda: super(Watched, self)._compare(*arguments))
        return found

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self._part("backward", lambda: super(Watched, self).backward(loss, *args, **kwargs))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Count the optimizer's own work; the closure, which it calls first, has its parts."""

        def closure() -> Any:
            # What Lightning does around the training step is no part of the optimizer.
            return self._part("rest", optimizer_closure)

        self._part("optimizer", lambda: super(Watched, self).optimizer_step(epoch, batch_idx, optimizer, closure))
