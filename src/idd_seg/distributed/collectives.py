"""Sums over the processes that train together; without a process group there is one, and nothing is sent."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(x: Tensor) -> Tensor:
    """Return the sum of `x` over the processes that train together, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def max_over_ranks(x: Tensor) -> Tensor:
    """Return the largest values of `x` over the processes that train together, without gradient."""
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced too.

    Every rank computes the same loss of the same sums, and DDP averages gradients over ranks: the sum over ranks in the
    backward pass makes that average the gradient that one process with the whole batch would see.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_ranks(gradients[0].contiguous())


def differentiable_sum_over_ranks(x: Tensor) -> Tensor:
    """Return the sum of `x` over the processes, with the gradient of what all of them compute from it."""
    summed: Tensor = _SumOverRanks.apply(x)
    return summed


def share_of_mean(total: Tensor, count: Tensor) -> Tensor:
    """Return this process's share of a mean over what all processes count.

    DDP averages the shares over the processes, so that a process with fewer valid pixels weighs less, as it would in
    one process with the whole batch.

    Args:
        total: sum over what this process counts; count: the number of it, or the sum of its weights.
    """
    whole = sum_over_ranks(count)
    return total / torch.where(whole > 0, whole, 1) * world_size()
