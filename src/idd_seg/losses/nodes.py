"""Class means ("nodes") of a feature map: the vertices of the class graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from idd_seg.losses.grid import as_float32, nearest_labels, no_autocast
from idd_seg.losses.ranks import differentiable_sum_over_ranks, sum_over_ranks

SCOPES = ("image", "batch", "world")
RESIZES = ("nearest", "area")


class Nodes(NamedTuple):
    """Class means over G graphs: one an image with scope `image`, else a single one.

    Attributes:
        means: (G, k, C), zero where a class has no pixel.
        pixels: (G, k), number of cells of the class; fractional with resize `area`.
        classes: (k,) int64, the ids of the k columns, ascending.
    """

    means: Tensor
    pixels: Tensor
    classes: Tensor


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError that names the value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got '{value}'")


def present_classes(labels: Tensor, num_classes: int, ignore_index: int, scope: str) -> tuple[Tensor, Tensor]:
    """Return the ids (k,) that occur in `labels`, and a table from id to column.

    The table has `num_classes` + 1 entries; its last one, and that of every absent class, is k: nowhere. With scope
    `world` the ids of all ranks count, so that every rank has the same columns.
    """
    flat = labels.flatten()
    known = (flat >= 0) & (flat < num_classes) & (flat != ignore_index)
    counts = torch.bincount(torch.where(known, flat, num_classes), minlength=num_classes + 1)[:num_classes]
    if scope == "world":
        counts = sum_over_ranks(counts)
    classes = counts.nonzero().flatten()
    table = torch.full((num_classes + 1,), len(classes), dtype=torch.int64, device=labels.device)
    table[classes] = torch.arange(len(classes), device=labels.device)
    return classes, table


def _columns(labels: Tensor, table: Tensor, num_classes: int) -> Tensor:
    """Replace class ids by columns; whatever is no class becomes the column of nothing."""
    known = (labels >= 0) & (labels < num_classes)
    return table[torch.where(known, labels, num_classes)]


def cell_shares(columns: Tensor, size: tuple[int, int], k: int, dtype: torch.dtype, resize: str) -> Tensor:
    """Return (N, k, h * w): how much of each cell of the grid belongs to each of the k columns.

    `nearest` gives 0 or 1. `area` gives the share of the cell's pixels; a pixel belongs to one cell, so classes never
    mix.
    """
    n, height, width = columns.shape
    cells = size[0] * size[1]
    if resize == "nearest" or height < size[0] or width < size[1]:
        column = nearest_labels(columns, size).reshape(n, 1, cells)
        return (column == torch.arange(k, device=columns.device)[:, None]).to(dtype)
    rows = torch.arange(height, device=columns.device) * size[0] // height
    across = torch.arange(width, device=columns.device) * size[1] // width
    cell = rows[:, None] * size[1] + across
    image = torch.arange(n, device=columns.device)[:, None, None]
    # Column k collects what takes no part and is cut off again.
    counts = torch.bincount(((image * (k + 1) + columns) * cells + cell).flatten(), minlength=n * (k + 1) * cells)
    area = torch.bincount(cell.flatten(), minlength=cells)
    return counts.view(n, k + 1, cells)[:, :k].to(dtype) / area.to(dtype)


def compact_class_means(
    features: Tensor, labels: Tensor, num_classes: int, *, ignore_index: int, scope: str, resize: str
) -> Nodes:
    """Class means of the classes that occur; `class_means` describes the arguments.

    A matrix product of the cells' shares with the features: no loop, and beside the features only (N, k, h * w) shares.
    """
    check_choice("scope", scope, SCOPES)
    check_choice("resize", resize, RESIZES)
    features = as_float32(features)
    size = (features.shape[-2], features.shape[-1])
    if resize == "nearest":
        labels = nearest_labels(labels, size)
    classes, table = present_classes(labels, num_classes, ignore_index, scope)
    if 0 <= ignore_index < num_classes:
        labels = torch.where(labels == ignore_index, num_classes, labels)
    shares = cell_shares(_columns(labels, table, num_classes), size, len(classes), features.dtype, resize)
    cells = features.permute(0, 2, 3, 1).flatten(1, 2)
    with no_autocast(features):
        sums, pixels = torch.bmm(shares, cells), shares.sum(2)
    if scope != "image":
        sums, pixels = sums.sum(0, keepdim=True), pixels.sum(0, keepdim=True)
    if scope == "world":
        sums, pixels = differentiable_sum_over_ranks(sums), sum_over_ranks(pixels)
    means = sums / torch.where(pixels > 0, pixels, torch.ones_like(pixels))[..., None]
    return Nodes(means, pixels, classes)


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
    nodes = compact_class_means(features, labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize)
    graphs, _, width = nodes.means.shape
    means = nodes.means.new_zeros(graphs, num_classes, width).index_copy(1, nodes.classes, nodes.means)
    pixels = nodes.pixels.new_zeros(graphs, num_classes).index_copy(1, nodes.classes, nodes.pixels)
    return means, pixels
