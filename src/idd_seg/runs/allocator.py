"""Memory that a step frees stays with the process, for the next step."""

from __future__ import annotations

import ctypes
import os
import sys

# Of mallopt(3): what is freed at the end of the heap is given back beyond so many bytes; what is larger than so many
# is mapped by itself, and given back at once.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER = 2**31 - 1
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed; tell whether it does.

    On a CPU, activations and gradients of tens of megabytes would be given back to the system in every step and come
    again page by page, each filled with zeros first: 8 % of a small network's training step. The process stays as large
    as its peak. Other systems' allocators, and settings in the environment, are left alone.
    """
    if sys.platform != "linux" or any(name in os.environ for name in OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, NEVER) == 1 for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD))
