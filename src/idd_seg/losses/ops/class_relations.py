"""How pixels compare with classes: distributions over the classes, and how far two networks' are apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import masked_mean

Mean = Callable[[Tensor, Tensor], Tensor]


def log_shares(x: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Log-softmax of x along `dim` over what is valid; the rest gets a share of exactly 0 and a finite logarithm."""
    return F.log_softmax(x.masked_fill(~valid, torch.finfo(x.dtype).min / 4), dim=dim)


def relation_divergence(
    student: Tensor, teacher: Tensor, present: Tensor, counted: Tensor, mean: Mean = masked_mean
) -> Tensor:
    """Mean over pixels of KL(teacher || student) of their softmax over the classes.

    Args:
        student, teacher: (N, k, P), how close each pixel is to each class; the teacher's without gradient.
        present: (N, k) or (1, k) bool, classes that there are.
        counted: (N, P) bool, pixels that take part.
        mean: over the pixels of all processes, or `own_masked_mean`.

    Returns:
        A scalar; exactly zero, with a gradient path, where no pixel takes part or there is one class alone.
    """
    ours, theirs = (log_shares(x, present[..., None], 1) for x in (student, teacher))
    return mean((theirs.exp() * (theirs - ours)).sum(1), counted)
