"""Class means ("prototypes") of a feature map: the vertices of the class graph."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from idd_seg.distributed.collectives import differentiable_sum_over_ranks, sum_over_ranks
from idd_seg.losses.ops.cells import RESIZES, Cells, cells_of, columns_for
from idd_seg.losses.ops.class_sums import class_sums
from idd_seg.losses.ops.grid import as_float32, nearest_labels
from idd_seg.ops.validation import require_choice

Scope = Literal["image", "batch", "world"]
SCOPES = get_args(Scope)


class Prototypes(NamedTuple):
    """Class means over G graphs: one an image with scope `image`, else a single one.

    Attributes:
        means: (G, k, C), zero where a class has no pixel.
        pixels: (G, k), number of cells of the class; fractional with resize `area`.
    """

    means: Tensor
    pixels: Tensor


def enough(pixels: Tensor, min_pixels: float) -> Tensor:
    """Tell where a class is present; shares of cells that add up to `min_pixels` but for rounding are enough."""
    return pixels >= min_pixels * (1 - 1e-5)


def graph_prototypes(features: Tensor, cells: Cells, scope: str) -> Prototypes:
    """Class means of features (N, C, h, w), float32 at least, by the columns of their cells."""
    sums, pixels = class_sums(features, cells), cells.pixels(features.dtype)
    if scope != "image":
        sums, pixels = sums.sum(0, keepdim=True), pixels.sum(0, keepdim=True)
    if scope == "world":
        sums, pixels = differentiable_sum_over_ranks(sums), sum_over_ranks(pixels)
    return Prototypes(sums / torch.where(pixels > 0, pixels, torch.ones_like(pixels))[..., None], pixels)


def common_prototypes(
    maps: list[Tensor], labels: Tensor, num_classes: int, *, ignore_index: int, scope: str, resize: str
) -> tuple[list[Prototypes], Tensor]:
    """Class means of several feature maps with the same columns, and the ids (k,) of these.

    Args:
        maps: (N, C, h, w) each; widths and grids may differ. Labels are brought to each grid once.
    """
    require_choice("scope", scope, SCOPES)
    require_choice("resize", resize, RESIZES)
    sizes = {(x.shape[-2], x.shape[-1]) for x in maps}
    sampled = [nearest_labels(labels, size) for size in sizes] if resize == "nearest" else [labels]
    columns = columns_for(sampled, num_classes, ignore_index, world=scope == "world")
    dtype = as_float32(maps[0]).dtype
    cells = {size: cells_of(labels, size, columns, ignore_index, resize, dtype) for size in sizes}
    prototypes = [graph_prototypes(as_float32(x), cells[x.shape[-2], x.shape[-1]], scope) for x in maps]
    return prototypes, columns.classes


def class_means(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    scope: str = "image",
    resize: str = "nearest",
) -> tuple[Tensor, Tensor]:
    """Mean feature vector of each class over its ground-truth pixels (masked average pooling).

    Args:
        features: (N, C, h, w), any floating type; computed in float32 (float64 stays).
        labels: (N, H, W) int64; ids outside 0..num_classes-1 and `ignore_index` take no part.
        scope: `image`, a graph for each image; `batch`, one over the batch; `world`, one over all DDP ranks
            (differentiable all-reduce of sums and counts).
        resize: how labels come to the feature grid: `nearest`, or `area`, the share of each class in a cell (`nearest`
            where the grid is finer than the labels).

    Returns:
        means (G, num_classes, C), zero for absent classes, and pixels (G, num_classes), the number of cells of each
        class; G is N with scope `image`, else 1.

    Raises:
        ValueError: for an unknown scope or resize.
    """
    (prototypes,), classes = common_prototypes(
        [features], labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize
    )
    if len(classes) == num_classes:
        return prototypes.means, prototypes.pixels
    graphs, _, width = prototypes.means.shape
    means = prototypes.means.new_zeros(graphs, num_classes, width).index_copy(1, classes, prototypes.means)
    pixels = prototypes.pixels.new_zeros(graphs, num_classes).index_copy(1, classes, prototypes.pixels)
    return means, pixels
