"""Timing several ways to do one thing side by side, and the memory that each takes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHORT = 0.3  # seconds


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median of all repeats, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{1e3 * self.median:.2f} ms ({1e3 * self.low:.2f} to {1e3 * self.high:.2f})"


def time_all(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Time the cases in turns, so that whatever else the machine does falls on all of them alike.

    A short case is called once more before each measured call: it would find the caches and the free memory as the
    case before it left them, and not, as in training, as its own last call did.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(warmup + repeats):
        for name, case in cases.items():
            if times[name] and times[name][-1] < SHORT:
                case()
            seconds = _seconds(case, device)
            if i >= warmup:
                times[name].append(seconds)
    return {name: summary(values) for name, values in times.items()}


def _seconds(case: Callable[[], object], device: torch.device | None) -> float:
    _wait(device)
    start = time.perf_counter()
    case()
    _wait(device)
    return time.perf_counter() - start


def summary(values: list[float]) -> Timing:
    if len(values) < 2:
        return Timing(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(middle, low, high)


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> int:
    """Return the bytes that a call takes at its peak beyond what was there before it, in a process of its own.

    Args:
        prepare: called with the arguments in the new process; returns the call to measure. Can be pickled.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, prepare, *arguments))
    # Every block of 64 KB or more is mapped by itself and given back when it is freed: none hides in a reserve.
    with _environment(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536"):
        process.start()
    sender.close()
    try:
        found: int = receiver.recv()
    finally:
        process.join()
    return found


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _measure(sender: Any, prepare: Callable[..., Callable[[], object]], *arguments: Any) -> None:
    torch.set_num_threads(1)
    case = prepare(*arguments)
    before = _resident(reset=True)
    case()
    sender.send(max(0, _resident() - before))


def _resident(reset: bool = False) -> int:
    """Return the peak of resident bytes, by option since now (Linux), else since the process began."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")  # the peak falls to what is resident now
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def peak_device_memory(case: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that a call takes at its peak on a GPU beyond what was there before it."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    case()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
