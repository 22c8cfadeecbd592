"""What a device can do at best: multiplications of matrices, and bytes through its memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from idd_seg.benchmarks.losses import measure_bandwidth
from idd_seg.benchmarks.timing import time_all

SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices


def measure_matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5, side: int | None = None) -> float:
    """Return the operations a second (a multiplication and an addition are two) of a large product of matrices.

    Args:
        side: of the square matrices; None chooses by the device.
    """
    side = side or SIDE.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    found = time_all({"product": lambda: a @ b}, repeats, device=device)
    return 2 * side**3 / found["product"].low


def count_step(student: nn.Module, teacher: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Return operations and bytes of a teacher's forward pass, and a student's with its gradients.

    Bytes: each convolution and product reads its operands and writes its result once, each in float32; activations and
    normalisations, which could be computed on the way, are not counted. Half as many in bfloat16.
    """
    held = [0]

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        once = inputs[0].numel() + output.numel() + sum(p.numel() for p in module.parameters(recurse=False))
        # Backward reads as much again for the gradient of the input, and for that of the weights.
        held[0] += 4 * once * (3 if module in trained else 1)

    trained = set(student.modules())
    layers = [m for net in (student, teacher) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with FlopCounterMode(display=False) as flops:
            with torch.no_grad():
                teacher(image)
            outputs = student(image)
            total = outputs.logits.float().mean()
            if outputs.auxiliary is not None:
                total = total + outputs.auxiliary.float().mean()
            torch.autograd.backward(total)
    finally:
        for handle in handles:
            handle.remove()
    student.zero_grad()
    return flops.get_total_flops(), held[0]


def bound(found: Mapping[str, Any], precision: str) -> float:
    """Return the seconds that arithmetic or memory take at least, whichever is more.

    Args:
        found: `flops`, `bytes`, `rates` by type and `bandwidth`.
        precision: of the trainer; all but `32-true` are half precision.
    """
    half = precision != "32-true"
    operations = found["flops"] / found["rates"]["bfloat16" if half else "float32"]
    return float(max(operations, found["bytes"] / (2 if half else 1) / found["bandwidth"]))


__all__ = ["bound", "count_step", "measure_bandwidth", "measure_matrix_rate"]
