"""From features to tables by class and back: single passes, and gradients in the features' own layout.

Autograd's gradient of a product with an indicator of the classes is transposed, and copied into the features' layout at
more than the cost of the product. Here each cell takes what its column has directly. On a CPU an indicator is faster
than addition cell by cell for few columns; on a GPU always, where the additions of one class wait for each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idd_seg.losses.ops.cells import Cells
from idd_seg.losses.ops.grid import no_autocast

DENSE = 48  # columns up to which products with all of them, of which each cell keeps its own, are faster
ADDED = 32  # columns from which on addition cell by cell is faster than a product with the indicator
WAYS = 4  # sums of a column that grow side by side: cells of one class lie together, and would wait for each other
BLOCK = 64  # channels that are spread over the cells at a time, so that they stay in the cache


def channels_last(x: Tensor) -> bool:
    """Tell whether (N, C, h, w) lies in memory with its channels side by side."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def class_sums(features: Tensor, cells: Cells) -> Tensor:
    """Return the sums (N, k, C) of the features (N, C, h, w) over the cells of each column."""
    with no_autocast(features):
        if cells.shares is None:
            sums: Tensor = _ClassSums.apply(features, cells.index, cells.columns)
            return sums
        # The factors stand so that the gradient comes in the layout of the features.
        if channels_last(features):
            return torch.bmm(cells.shares, features.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.bmm(features.flatten(2), cells.shares.mT).mT


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor, columns: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.last = features.shape, channels_last(features)
        return weighted_sums(features, index, columns, None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return spread(gradients[0], index, ctx.shape, ctx.last), None, None


def dense(features: Tensor, columns: int) -> bool:
    """Tell whether products with all columns are the faster way."""
    return features.is_cuda or columns <= DENSE


def weighted_sums(features: Tensor, index: Tensor, columns: int, weight: Tensor | None) -> Tensor:
    """Sum the features of each column's cells, by option weighted by (N, P)."""
    n, width = features.shape[:2]
    if channels_last(features) and not features.is_cuda:
        rows = features.permute(0, 2, 3, 1).reshape(-1, width)
        rows = rows if weight is None else rows * weight.reshape(-1, 1)
        sums = features.new_zeros(n * (columns + 1), width).index_add_(0, _flat(index, columns), rows)
        return sums.view(n, columns + 1, width)[:, :columns]
    cells = features.flatten(2)
    if features.is_cuda or columns < ADDED:
        indicator = (index[:, None] == torch.arange(columns, device=index.device)[:, None]).to(features.dtype)
        return torch.bmm(indicator if weight is None else indicator.mul_(weight[:, None]), cells.mT)
    sums = features.new_zeros(n, width, WAYS * (columns + 1))
    place = index + (columns + 1) * (torch.arange(index.shape[1], device=index.device) % WAYS)
    for start in range(0, width, BLOCK if weight is not None else width):
        block = slice(start, start + BLOCK if weight is not None else width)
        part = cells[:, block] if weight is None else cells[:, block] * weight[:, None]
        sums[:, block].scatter_add_(2, place[:, None].expand_as(part), part)
    return sums.view(n, width, WAYS, -1).sum(2)[..., :columns].mT.contiguous()


def spread(vectors: Tensor, index: Tensor, shape: torch.Size, last: bool) -> Tensor:
    """Give each cell the vector (N, k, C) of its column, or zeros: (N, C, h, w), by option channels last."""
    n, width, height, across = shape
    if last:
        rows = _padded(vectors).view(-1, width).index_select(0, _flat(index, vectors.shape[1]))
        return rows.view(n, height, across, width).permute(0, 3, 1, 2)
    return own_vectors(vectors, index).view(shape)


def own_vectors(vectors: Tensor, index: Tensor) -> Tensor:
    """Give each cell the vector (N, k, C) of its column, zeros where it has none: (N, C, P)."""
    table = _padded(vectors).mT.contiguous()
    return torch.gather(table, 2, index[:, None].expand(-1, table.shape[1], -1))


def _padded(vectors: Tensor) -> Tensor:
    """Add a row of zeros for the cells of no column."""
    return torch.cat([vectors, vectors.new_zeros(len(vectors), 1, vectors.shape[2])], dim=1)


def _flat(index: Tensor, columns: int) -> Tensor:
    """Number the columns of all images through."""
    image = torch.arange(len(index), device=index.device)[:, None]
    return (image * (columns + 1) + index).flatten()
