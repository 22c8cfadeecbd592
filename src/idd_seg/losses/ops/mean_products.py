"""Class means and the products of every cell with them, in one function, whose gradient is one map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idd_seg.distributed.collectives import sum_over_ranks
from idd_seg.losses.ops.cells import Cells
from idd_seg.losses.ops.class_products import all_products, inverse_roots, rows_of, squares
from idd_seg.losses.ops.class_sums import channels_last, spread, weighted_sums
from idd_seg.losses.ops.grid import no_autocast


def mean_products(features: Tensor, cells: Cells, scope: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `graph_prototypes` and `class_products` give of the same features, at less cost.

    Args:
        features: (N, C, h, w), float32 at least.
        cells: of one column each.
        scope: `image`, `batch` or `world`; see `class_means`.

    Returns:
        means (G, k, C), zero for absent columns; products (N, k, P); squared lengths of the features (N, P).
    """
    with no_autocast(features):
        means, products, squared = _MeanProducts.apply(
            features, cells.index, pixels_of(cells, scope, features.dtype), scope
        )
    return means, products, squared


def unit_map(features: Tensor) -> Tensor:
    """Bring the feature of each cell (N, C, h, w) to length 1; zeros stay, and get gradient 0."""
    found: Tensor = _UnitMap.apply(features)
    return found


def pixels_of(cells: Cells, scope: str, dtype: torch.dtype) -> Tensor:
    """Return the number of cells (G, k) of each column in each graph."""
    pixels = cells.pixels(dtype)
    pixels = pixels if scope == "image" else pixels.sum(0, keepdim=True)
    return sum_over_ranks(pixels) if scope == "world" else pixels


def _gathered(x: Tensor, scope: str) -> Tensor:
    """(N, k, C) of images -> (G, k, C) of graphs."""
    x = x if scope == "image" else x.sum(0, keepdim=True)
    return sum_over_ranks(x) if scope == "world" else x


class _MeanProducts(torch.autograd.Function):
    """With g the gradient of the products and u that of the sums: df = means^T g + u of the own column + 2 f dq.

    Autograd would build a map for each of the three, and add them.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor, pixels: Tensor, scope: str) -> tuple[Tensor, Tensor, Tensor]:
        columns = pixels.shape[1]
        means = _gathered(weighted_sums(features, index, columns, None), scope) / pixels.clamp(min=1)[..., None]
        ctx.save_for_backward(features, index, pixels, means)
        ctx.scope = scope
        vectors = means.expand(len(features), -1, -1)
        if channels_last(features):
            products = torch.bmm(rows_of(features), vectors.mT).mT
        else:
            products = all_products(features, vectors)[:, :columns]
        return means, products, squares(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        features, index, pixels, means = ctx.saved_tensors
        to_means, to_products, to_squares = gradients
        last = channels_last(features)
        rows = rows_of(features) if last else features.flatten(2).mT
        # Each rank's own products, and the same means on all: what these get is summed once.
        own = torch.bmm(to_products, rows)
        own = own if ctx.scope == "image" else own.sum(0, keepdim=True)
        to_sums = to_means + own
        to_sums = (sum_over_ranks(to_sums) if ctx.scope == "world" else to_sums) / pixels.clamp(min=1)[..., None]
        n, _, height, width = features.shape
        means, to_sums = means.expand(n, -1, -1), to_sums.expand(n, -1, -1)
        if last:
            out = torch.bmm(to_products.mT, means).addcmul_(rows, to_squares[..., None], value=2)
            return (
                out.view(n, height, width, -1).permute(0, 3, 1, 2) + spread(to_sums, index, features.shape, True),
                None,
                None,
                None,
            )
        indicator = (index[:, None] == torch.arange(means.shape[1], device=index.device)[:, None]).to(features.dtype)
        out = torch.bmm(torch.cat([means, to_sums], 1).mT, torch.cat([to_products, indicator], 1))
        out = out.addcmul_(features.flatten(2), to_squares[:, None], value=2)
        return out.view(features.shape), None, None, None


class _UnitMap(torch.autograd.Function):
    """With u = f / |f|: df = (g - u (u . g)) / |f|."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        inverse = inverse_roots(squares(features)).view(len(features), 1, *features.shape[2:])
        unit = features * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = (unit * gradients[0]).sum(1, keepdim=True)
        return torch.addcmul(gradients[0], unit, along, value=-1).mul_(inverse)
