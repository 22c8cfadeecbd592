"""Bringing tensors of different precision and resolution together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.distributed.collectives import share_of_mean


def as_float32(x: Tensor) -> Tensor:
    """Return `x` in float32; float64 stays, so that gradients can be checked."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def no_autocast(x: Tensor) -> torch.autocast:
    """Return a context in which products on the device of `x` keep the precision of their operands."""
    return torch.autocast(x.device.type, enabled=False)


def nearest_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Sample labels (N, H, W) on a coarser or finer grid (N, *size) without ever mixing class ids.

    Row i of the grid reads row floor(i * H / h): where a strided convolution is centred.
    """
    height, width = labels.shape[-2:]
    if (height, width) == tuple(size):
        return labels
    if height % size[0] == 0 and width % size[1] == 0:
        return labels[:, :: height // size[0], :: width // size[1]]  # the same cells, and nothing is looked up
    rows = torch.arange(size[0], device=labels.device) * height // size[0]
    columns = torch.arange(size[1], device=labels.device) * width // size[1]
    return labels[:, rows[:, None], columns]


def resize_like(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bring a feature map (N, C, h, w) to `size` bilinearly; returned as it is when it fits already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` where `valid`; exactly zero, with a gradient path, where nothing is valid.

    With several processes, this one's share of the mean over all of them: see `share_of_mean`. All must call it.
    """
    valid = valid.expand_as(values)
    return share_of_mean(_sum(values, valid), valid.sum())


def own_masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """`masked_mean` of what this process has, which others need not call."""
    valid = valid.expand_as(values)
    return _sum(values, valid) / valid.sum().clamp(min=1)


def _sum(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, values.new_zeros(())).sum()
