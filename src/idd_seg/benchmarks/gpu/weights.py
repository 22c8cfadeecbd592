"""A name for the weights of a run's student."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

STUDENT = "student."


def last_checkpoint(run: Path) -> dict[str, Any]:
    """Read the last checkpoint of a run folder."""
    content: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return content


def digest_of(checkpoint: dict[str, Any]) -> str:
    """Return the SHA-256 of the student's tensors in a checkpoint: names, types, shapes and every bit."""
    found = hashlib.sha256()
    tensors = {name: x for name, x in checkpoint["state_dict"].items() if name.startswith(STUDENT)}
    if not tensors:
        raise ValueError(f"the checkpoint has no tensors whose names begin with '{STUDENT}'")
    for name, x in sorted(tensors.items()):
        found.update(f"{name} {x.dtype} {tuple(x.shape)}\0".encode())
        found.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
