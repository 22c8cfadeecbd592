"""Distances between class prototypes, and the comparison of two class graphs edge by edge."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from idd_seg.losses.ops.grid import no_autocast

Distance = Literal["euclidean", "squared", "cosine"]
Normalize = Literal["mean", "none"]
Reduction = Literal["mean", "sum"]
# Of squared lengths: below it, rounding in float64 is all that a squared difference holds.
ZERO = 1e-13


def distance_matrix(means: Tensor, distance: str = "euclidean") -> Tensor:
    """Distances (G, k, k) between the k prototypes (G, k, C) of each graph.

    Args:
        distance: `euclidean`; `squared`, its square; `cosine`, 1 - the cosine, 1 to a prototype of zeros.

    Returns:
        In the prototypes' type; exactly 0, with gradient 0, between prototypes that are equal, and on the diagonal.
    """
    # By products, in float64: near classes are the point, and in float32 cancellation would spoil just those.
    wide = means if means.device.type == "mps" else means.double()
    with no_autocast(means):
        if distance == "cosine":
            length = torch.linalg.vector_norm(wide, dim=2, keepdim=True)
            wide = wide / torch.where(length == 0, torch.inf, length)
        products = torch.bmm(wide, wide.mT)
    lengths = products.diagonal(dim1=1, dim2=2)
    both = lengths[:, :, None] + lengths[:, None, :]
    wider = torch.add(both, products, alpha=-2)
    # Not `wider > ...`: what is not a number must stay so, for the loss to be refused.
    apart = ~(wider.detach() <= ZERO * both.detach())
    # The difference is taken; what follows needs the prototypes' precision alone.
    squared = wider.to(means.dtype)
    if distance == "cosine":
        # For unit vectors half the squared difference is 1 - cos; a prototype of zeros is at right angles to all.
        squared = torch.where((lengths[:, :, None] == 0) | (lengths[:, None, :] == 0), 1, squared / 2)
    kept = torch.where(apart, squared, 1)
    return torch.where(apart, kept.sqrt() if distance == "euclidean" else kept, 0)


def both(present: Tensor) -> Tensor:
    """(G, k) presence -> (G, k, k) pairs of which both are present."""
    return present[:, :, None] & present[:, None, :]


def _relative(edges: Tensor, pairs: Tensor, count: Tensor) -> Tensor:
    """Divide each graph's edges by their own mean over `pairs`; edges that are all zero stay zero."""
    mean = (edges * pairs).sum((1, 2)) / count.clamp(min=1)
    return edges / torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None]


def graph_distance(
    student: Tensor,
    teacher: Tensor,
    pairs: Tensor,
    *,
    normalize: str = "mean",
    reduction: str = "mean",
    distance: str = "euclidean",
) -> Tensor:
    """Compare two sets of class graphs edge by edge.

    Args:
        student, teacher: prototypes (G, k, Cs) and (G, k, Ct).
        pairs: (G, k, k) bool, True where an edge takes part; only the part above the diagonal is read.

    Returns:
        A scalar: the squared difference of the edges, averaged (or, with reduction `sum`, summed) over each graph's
        pairs and then averaged over the graphs that have a pair. Exactly zero, with a gradient path, where none has.
    """
    weights = torch.triu(pairs, diagonal=1).to(student.dtype)
    count = weights.sum((1, 2))
    edges_s, edges_t = distance_matrix(student, distance), distance_matrix(teacher, distance)
    if normalize == "mean":
        edges_s, edges_t = _relative(edges_s, weights, count), _relative(edges_t, weights, count)
    loss = ((edges_s - edges_t).square() * weights).sum((1, 2))
    if reduction == "mean":
        loss = loss / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)
