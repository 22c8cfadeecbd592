"""What all results say: on which card, by which software, of which commit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch

from idd_seg.runs.provenance import git_state, versions

QUERY = ("name", "driver_version", "memory.total")


def machine(device: str, top: Path) -> dict[str, Any]:
    """Return card and driver (None on a CPU), the versions, processors and commit.

    The commit of a checkout without its history is read from `COMMIT` of the environment.
    """
    card, driver, memory = _card() if device == "cuda" else (None, None, None)
    return {
        "device": device,
        "gpu": card,
        "gpu_memory": memory,
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device == "cuda" else None,  # type: ignore[no-untyped-call]
        "cpus": os.cpu_count(),
        "versions": versions(),
        "git": git_state(top) or {"commit": os.environ.get("COMMIT") or None, "changed": None},
    }


def _card() -> tuple[str | None, str | None, str | None]:
    """Ask the driver's own program, so that this process takes no memory of the card."""
    words = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return torch.cuda.get_device_name() if torch.cuda.is_available() else None, None, None
    # CUDA_VISIBLE_DEVICES is not known to it: the first line is the card of a machine of one.
    name, driver, memory = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    return name, driver, memory
