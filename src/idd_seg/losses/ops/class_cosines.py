"""How far each cell's feature turns away from the mean of its class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idd_seg.losses.ops.cells import Cells
from idd_seg.losses.ops.class_products import own_products, squares
from idd_seg.losses.ops.class_sums import BLOCK, channels_last, dense, own_vectors, spread, weighted_sums
from idd_seg.losses.ops.grid import no_autocast


def class_cosines(features: Tensor, cells: Cells) -> Tensor:
    """Return the cosine (N, P) of each cell's feature to the mean of its column's features in its image.

    Args:
        features: (N, C, h, w), float32 at least.
        cells: of one column each.

    Returns:
        In -1 to 1; 0 for a cell of no column, and where feature or mean is zero. The gradient flows through the
        means too.
    """
    with no_autocast(features):
        cosines: Tensor = _ClassCosines.apply(features, cells.index, cells.pixels(features.dtype))
    return cosines


class _ClassCosines(torch.autograd.Function):
    """With a = 1 / |f| and u = mu / |mu|: m = a f . u, dm/df = a (u - m a f), dm/du = a f, du/dmu = (1 - u u) / |mu|.

    In one function, because autograd would build the map of means, its gradient, and a gradient of the features for
    each way that leads to them.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, index: Tensor, pixels: Tensor) -> Tensor:
        means = weighted_sums(features, index, pixels.shape[1], None) / pixels.clamp(min=1)[..., None]
        shrink = _inverse(torch.linalg.vector_norm(means, dim=2, keepdim=True))
        units = means * shrink
        inverse = _inverse(squares(features).sqrt())
        cosines = own_products(features, units, index) * inverse
        ctx.save_for_backward(features, index, pixels, units, shrink, inverse, cosines)
        return cosines

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, index, pixels, units, shrink, inverse, cosines = ctx.saved_tensors
        scaled = gradients[0] * inverse
        to_units = weighted_sums(features, index, units.shape[1], scaled)
        along = (to_units * units).sum(2, keepdim=True)
        to_sums = (to_units - along * units) * shrink / pixels.clamp(min=1)[..., None]
        return _to_features(features, index, units, to_sums, scaled, scaled * cosines * inverse), None, None


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 for 0."""
    return torch.where(x > 0, x, torch.inf).reciprocal()


def _to_features(
    features: Tensor, index: Tensor, units: Tensor, to_sums: Tensor, scaled: Tensor, shorter: Tensor
) -> Tensor:
    """Return scaled * (own unit vector) + (own column's `to_sums`) - shorter * feature, in the features' layout."""
    n, columns, _ = units.shape
    if channels_last(features):
        grid = (n, 1, *features.shape[2:])
        out = spread(units, index, features.shape, True).mul_(scaled.view(grid))
        out += spread(to_sums, index, features.shape, True)
        return out.addcmul_(features, shorter.view(grid), value=-1)
    cells = features.flatten(2)
    if dense(features, columns):
        own = (index[:, None] == torch.arange(columns, device=index.device)[:, None]).to(features.dtype)
        out = torch.bmm(torch.cat([units, to_sums], 1).mT, torch.cat([own * scaled[:, None], own], 1))
        return out.addcmul_(cells, shorter[:, None], value=-1).view(features.shape)
    out = torch.empty_like(cells)
    for start in range(0, cells.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        part = own_vectors(units[..., block], index).mul_(scaled[:, None])
        part += own_vectors(to_sums[..., block], index)
        torch.addcmul(part, cells[:, block], shorter[:, None], value=-1, out=out[:, block])
    return out.view(features.shape)
