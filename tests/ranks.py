"""Several processes of a group, forked from one that has imported what they need: starts take no import each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

# Imported once, by the server that all of this test process's ranks are forked from. It has never trained.
IMPORTED = ["torch", "torch.nn.parallel", "lightning", "idd_seg.runs.run"]


def ranks_of(work: Callable[..., None], *arguments: Any, number: int = 2) -> None:
    """Run `work(rank, *arguments)` in so many processes; what one of them raises is raised here."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    torch.multiprocessing.start_processes(work, args=arguments, nprocs=number, start_method="forkserver")
