"""Products of each cell's feature with the vectors of classes: with all of them, or with the one of its own class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.class_sums import BLOCK, channels_last, dense, own_vectors, spread
from idd_seg.losses.ops.grid import no_autocast


def class_products(features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the products (N, k, P) of each cell's feature with k vectors, and the squares (N, P) of their lengths.

    Args:
        features: (N, C, h, w), float32 at least.
        vectors: (N, k, C), or (1, k, C) for all images.

    The gradient comes in the features' layout, as one map.
    """
    with no_autocast(features):
        products, squared = _ClassProducts.apply(features, vectors)
    return products, squared


def inverse_roots(squared: Tensor) -> Tensor:
    """Return 1 / sqrt(x), and 0, with gradient 0, for 0."""
    return torch.where(squared > 0, squared, torch.inf).rsqrt()


class _ClassProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, vectors)
        spreading = vectors.expand(len(features), -1, -1)
        if channels_last(features):
            products = torch.bmm(rows_of(features), spreading.mT).mT
        else:
            products = all_products(features, spreading)[:, : vectors.shape[1]]
        return products, squares(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features, vectors = ctx.saved_tensors
        to_products, to_squares = gradients
        to_features = to_vectors = None
        if ctx.needs_input_grad[0]:
            spreading = vectors.expand(len(features), -1, -1)
            if channels_last(features):
                rows = torch.bmm(to_products.mT, spreading).addcmul_(rows_of(features), to_squares[..., None], value=2)
                n, _, height, width = features.shape
                to_features = rows.view(n, height, width, -1).permute(0, 3, 1, 2)
            else:
                out = torch.bmm(spreading.mT, to_products)
                to_features = out.addcmul_(features.flatten(2), to_squares[:, None], value=2).view(features.shape)
        if ctx.needs_input_grad[1]:
            rows = rows_of(features) if channels_last(features) else features.flatten(2).mT
            to_vectors = torch.bmm(to_products, rows)
            to_vectors = to_vectors if len(vectors) == len(to_vectors) else to_vectors.sum(0, keepdim=True)
        return to_features, to_vectors


def rows_of(features: Tensor) -> Tensor:
    """Features that lie channels last as (N, P, C), not copied."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def squares(features: Tensor) -> Tensor:
    """Return the squared lengths (N, P) of the features (N, C, h, w)."""
    if channels_last(features):
        return rows_of(features).square().sum(2)
    cells = features.flatten(2)
    # By blocks that stay in the cache: a norm across the rows of the memory is several times as slow.
    found = cells[:, :BLOCK].square()
    for start in range(BLOCK, cells.shape[1], BLOCK):
        block = cells[:, start : start + BLOCK]
        found[:, : block.shape[1]].addcmul_(block, block)
    return found.sum(1)


def own_products(features: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
    """Return the product (N, P) of each cell's feature with the vector (N, k, C) of its column, 0 without one."""
    columns = vectors.shape[1]
    if channels_last(features):
        return spread(vectors, index, features.shape, True).mul_(features).sum(1).flatten(1)
    cells = features.flatten(2)
    if dense(features, columns):
        # To all columns by one product, of which the own is kept.
        kept = all_products(features, vectors).gather(1, index.clamp(max=columns - 1)[:, None])[:, 0]
        return torch.where(index < columns, kept, 0)
    products = features.new_zeros(index.shape)
    for start in range(0, features.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        products += own_vectors(vectors[..., block], index).mul_(cells[:, block]).sum(1)
    return products


def all_products(features: Tensor, vectors: Tensor) -> Tensor:
    """Return the products (N, at least k, P) of each cell's feature with the vectors (N, k, C) of all columns."""
    if features.is_cuda:
        return torch.bmm(vectors, features.flatten(2))
    # A product with few rows copies the map first; a grouped 1 x 1 convolution reads it as it lies, unless the number
    # of its outputs suggests blocks of channels: an odd one does not.
    n, columns, width = vectors.shape
    odd = columns + 1 - columns % 2
    kernels = vectors.new_zeros(n, odd, width)
    kernels[:, :columns] = vectors
    stacked = features.contiguous().view(1, n * width, *features.shape[2:])
    return F.conv2d(stacked, kernels.view(n * odd, width, 1, 1), groups=n).view(n, odd, -1)
