"""Images per second of the written files and of PyTorch, interleaved in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.errors import ConfigError
from idd_seg.exporting.parity import Runner
from idd_seg.ops.validation import require_whole


def check(size: Any, repeats: Any) -> None:
    """Refuse what `measure` can't do.

    Raises:
        ConfigError: for a size or a number of repeats that is no whole number of at least 1.
    """
    listed = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    if not listed or not all(type(side) is int and side >= 1 for side in size):
        raise ConfigError(f"measure.size must be [height,width] in whole pixels, got {size}")
    require_whole("measure.repeats", repeats, 1, error=ConfigError)


@torch.inference_mode()
def measure(runners: Mapping[str, Runner], size: Sequence[int], repeats: int, pixels: Pixels = RGB) -> dict[str, Any]:
    """Return the median speed of each on one picture of `size`, and as a ratio to the first of them.

    They take turns, so that what else the machine does meets all alike.
    """
    shape, kind = (1, pixels.channels, *size), getattr(torch, str(pixels.dtype))
    picture = torch.randint(0, pixels.white + 1, shape, generator=torch.Generator().manual_seed(0)).to(kind)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(repeats + 1):
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(picture)
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    speeds = {name: 1 / sorted(found)[len(found) // 2] for name, found in times.items()}
    first = next(iter(speeds.values()))
    return {
        "size": list(size),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "images_per_second": {name: round(value, 3) for name, value in speeds.items()},
        "ratio": {name: round(value / first, 3) for name, value in speeds.items()},
    }
