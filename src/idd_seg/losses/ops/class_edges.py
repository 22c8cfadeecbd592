"""Where the classes of a picture have their edges, without a map of the picture's size for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.ops.validation import require_whole

BITS = 31  # classes to a word; the sign stays clear


@torch.no_grad()
def class_edges(
    labels: Tensor, num_classes: int, size: Sequence[int], *, width: int, ignore_index: int = 255
) -> Tensor:
    """Return how much of each cell of a grid is edge of each class (N, K, h, w), 0 to 1, in float32.

    A pixel is edge of class k if a window around it has class k and something else: the dilation of the class's mask
    less its erosion. Cells take the mean over their pixels. What lies beyond the picture or is ignored makes no edge,
    and an ignored pixel is none.

    Args:
        labels: (N, H, W); where the grid is finer, it samples them.
        width: side of the window in pixels, odd.
    """
    n, height, across = labels.shape
    finer = height < size[0] or across < size[1]
    grid = (height, across) if finer else (int(size[0]), int(size[1]))
    known = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    words = [_in_window(_word(labels, known, w), width // 2) for w in range(-(-num_classes // BITS))]
    several = torch.stack([w & (w - 1) for w in words]).any(0) | (torch.stack([w > 0 for w in words]).sum(0) > 1)
    at = (several & known).flatten().nonzero().flatten()
    place = _cell_of_each_pixel(n, (height, across), grid, labels.device)[at]
    counts = torch.zeros(n * grid[0] * grid[1], num_classes, device=labels.device)
    for w, word in enumerate(words):
        _count(counts, place, word.flatten()[at], w * BITS)
    edges = counts.view(n, *grid, num_classes).permute(0, 3, 1, 2) / _areas((height, across), grid, labels.device)
    return nearest_labels(edges.flatten(0, 1), size).view(n, num_classes, *size) if finer else edges


def check_width(width: int) -> None:
    """Raise a ValueError for the side of a window that is not odd, or below 3."""
    require_whole("width", width, 3)
    if width % 2 == 0:
        raise ValueError(f"width must be odd, got {width}")


def _word(labels: Tensor, known: Tensor, word: int) -> Tensor:
    """One bit for a pixel's class, if that is one of the word's classes."""
    bit = labels - word * BITS
    here = known & (bit >= 0) & (bit < BITS)
    return torch.where(here, torch.ones_like(labels) << bit.clamp(0, BITS - 1), 0).to(torch.int32)


def _in_window(bits: Tensor, radius: int) -> Tensor:
    """Collect the bits of all pixels of a square window; the row, then the column, in steps that double its reach."""
    for dim in (1, 2):
        reach = 0
        while reach < radius:
            step = min(2 * reach + 1, radius - reach)
            bits = _with_neighbours(bits, step, dim)
            reach += step
    return bits


def _with_neighbours(bits: Tensor, step: int, dim: int) -> Tensor:
    out, length = bits.clone(), bits.shape[dim] - step
    if length > 0:
        out.narrow(dim, step, length).bitwise_or_(bits.narrow(dim, 0, length))
        out.narrow(dim, 0, length).bitwise_or_(bits.narrow(dim, step, length))
    return out


def _count(counts: Tensor, place: Tensor, bits: Tensor, first: int) -> None:
    """Add 1 to counts (cells, K) for each bit of each pixel: the lowest bit of all of them, then the next."""
    left = bits > 0
    while bool(left.any()):
        place, bits = place[left], bits[left]
        lowest = bits & -bits
        classes = torch.frexp(lowest.double())[1] - 1 + first
        flat = place * counts.shape[1] + classes
        counts.view(-1).index_add_(0, flat, torch.ones_like(flat, dtype=counts.dtype))
        bits = bits & (bits - 1)
        left = bits > 0


def _lines(size: Sequence[int], grid: Sequence[int], device: torch.device) -> list[Tensor]:
    """The cell's row of each row of pixels, and its column of each column."""
    return [torch.arange(side, device=device) * cells // side for side, cells in zip(size, grid, strict=True)]


def _cell_of_each_pixel(n: int, size: Sequence[int], grid: Sequence[int], device: torch.device) -> Tensor:
    rows, columns = _lines(size, grid, device)
    image = torch.arange(n, device=device)[:, None, None] * (grid[0] * grid[1])
    return (image + rows[:, None] * grid[1] + columns).flatten()


def _areas(size: Sequence[int], grid: Sequence[int], device: torch.device) -> Tensor:
    """Pixels (h, w) of each cell."""
    rows, columns = (
        torch.bincount(line, minlength=cells) for line, cells in zip(_lines(size, grid, device), grid, strict=True)
    )
    return rows[:, None] * columns
