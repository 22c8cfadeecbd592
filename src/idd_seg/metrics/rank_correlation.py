"""Rank correlation."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, from 0; equal values share their mean rank."""
    ordered = values.sort(dim=-1).values.contiguous()
    first = torch.searchsorted(ordered, values.contiguous(), right=False)
    behind = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (first + behind - 1).double() / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation along the last dimension, in -1 to 1; 0 where one side is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    norm = x.norm(dim=-1) * y.norm(dim=-1)
    return torch.where(norm > 0, (x * y).sum(-1) / norm.clamp(min=1e-12), torch.zeros_like(norm))
