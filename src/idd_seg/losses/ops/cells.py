"""Which class each cell of a feature grid belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from idd_seg.distributed.collectives import sum_over_ranks
from idd_seg.losses.ops.grid import nearest_labels

Resize = Literal["nearest", "area"]
RESIZES = get_args(Resize)
# Up to so many classes each has a column, present or not. To ask which are present makes a GPU wait.
COMPACT = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True)
class Columns:
    """The classes that get a column of their own in tables by class.

    Attributes:
        classes: (k,) int64, the ids of the columns, ascending.
        table: (num_classes + 1,) int64, from id to column; k, which is none, for the last entry and absent classes.
    """

    classes: Tensor
    table: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def of(self, labels: Tensor, ignore_index: int) -> Tensor:
        """Replace class ids by columns; whatever is no class becomes k."""
        nothing = len(self.table) - 1
        known = (labels >= 0) & (labels < nothing) & (labels != ignore_index)
        ids = torch.where(known, labels, nothing)
        return ids if len(self) == nothing else self.table[ids]


def columns_for(labels: Iterable[Tensor], num_classes: int, ignore_index: int, *, world: bool) -> Columns:
    """Choose the columns: all classes, or of many (see `COMPACT`) those that occur in `labels`.

    Args:
        world: let the labels of all ranks count, so that every rank has the same columns.
    """
    given = list(labels)
    device = given[0].device
    everything = torch.arange(num_classes + 1, device=device)
    if num_classes <= COMPACT.get(device.type, 256):
        return Columns(everything[:-1], everything)
    every = Columns(everything[:-1], everything)
    counts = torch.stack(
        [torch.bincount(every.of(x, ignore_index).flatten(), minlength=num_classes + 1) for x in given]
    ).sum(0)
    counts = sum_over_ranks(counts) if world else counts
    classes = counts[:-1].nonzero().flatten()
    table = torch.full_like(everything, len(classes))
    table[classes] = torch.arange(len(classes), device=device)
    return Columns(classes, table)


@dataclass(frozen=True)
class Cells:
    """The grid's cells, image by image; P = h w.

    Attributes:
        columns: number k of columns.
        index: (N, P) int64, the column of each cell, k for none; None where cells are shared.
        shares: (N, k, P), how much of each cell belongs to each column; None where cells have one column each.
    """

    columns: int
    index: Tensor | None = None
    shares: Tensor | None = None

    def pixels(self, dtype: torch.dtype) -> Tensor:
        """Return the number of cells (N, k) of each column; fractional for shares."""
        if self.shares is not None:
            return self.shares.sum(2).to(dtype)
        assert self.index is not None
        counts = torch.zeros(len(self.index), self.columns + 1, dtype=dtype, device=self.index.device)
        return counts.scatter_add_(1, self.index, torch.ones_like(self.index, dtype=dtype))[:, :-1]


def cells_of(
    labels: Tensor, size: Sequence[int], columns: Columns, ignore_index: int, resize: str, dtype: torch.dtype
) -> Cells:
    """Bring labels (N, H, W) to a grid of `size`, without ever mixing classes.

    `nearest` samples. `area` gives the share of the cell's pixels; a pixel belongs to one cell. Where the grid is
    finer than the labels, `area` samples too.
    """
    k = len(columns)
    n, height, width = labels.shape
    if resize == "nearest" or height < size[0] or width < size[1]:
        return Cells(k, index=columns.of(nearest_labels(labels, size), ignore_index).flatten(1))
    rows = torch.arange(height, device=labels.device) * size[0] // height
    across = torch.arange(width, device=labels.device) * size[1] // width
    cell = rows[:, None] * size[1] + across
    cells = size[0] * size[1]
    image = torch.arange(n, device=labels.device)[:, None, None]
    # Column k collects what takes no part and is cut off again.
    place = (image * (k + 1) + columns.of(labels, ignore_index)) * cells + cell
    counts = torch.bincount(place.flatten(), minlength=n * (k + 1) * cells)
    area = torch.bincount(cell.flatten(), minlength=cells)
    return Cells(k, shares=counts.view(n, k + 1, cells)[:, :k].to(dtype) / area.to(dtype))
