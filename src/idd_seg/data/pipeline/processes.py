"""Among which processes this one is, and how a loader process begins."""

from __future__ import annotations

import cv2
import torch

from idd_seg.data.pipeline.worker_signals import leave_signals_to_the_run
from idd_seg.data.pipeline.worker_timeout import limit_worker_time


def begin_worker(timeout_s: float | None, worker: int) -> None:
    """Prepare a loader process; `timeout_s` bounds what a sample may take."""
    leave_signals_to_the_run()
    limit_worker_time(timeout_s)
    # One thread each: several workers with a thread pool of their own slow each other down.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def rank_and_world() -> tuple[int, int]:
    """Return this process's number in its group, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
