"""Distances between class prototypes, and the comparison of two class graphs edge by edge."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from idd_seg.losses.ops.grid import no_autocast

Distance = Literal["euclidean", "squared", "cosine", "gaussian"]
Side = Literal["both", "near"]
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


def mean_edge(edges: Tensor, pairs: Tensor) -> Tensor:
    """Mean (G, 1, 1) of each graph's edges (G, k, k) over the `pairs` above the diagonal; 1 where it is zero."""
    weights = torch.triu(pairs, diagonal=1).to(edges.dtype)
    mean = (edges * weights).sum((1, 2), keepdim=True) / weights.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(mean > 0, mean, torch.ones_like(mean))


def graph_distance(
    student: Tensor,
    teacher: Tensor,
    pairs: Tensor,
    *,
    normalize: str = "mean",
    reduction: str = "mean",
    distance: str = "euclidean",
    sigma: float = 1.0,
    side: str = "both",
) -> Tensor:
    """Compare two sets of class graphs edge by edge.

    Args:
        student, teacher: prototypes (G, k, Cs) and (G, k, Ct).
        pairs: (G, k, k) bool, True where an edge takes part; only the part above the diagonal is read.
        distance: those of `distance_matrix`, or `gaussian`: 1 - exp(-d^2 / (2 sigma^2)) of the Euclidean d, relative
            where it is normalised.
        side: `both`, or `near`: only edges that are shorter in the student count, with the others as zeros.

    Returns:
        A scalar: the squared difference of the edges, averaged (or, with reduction `sum`, summed) over each graph's
        pairs and then averaged over the graphs that have a pair. Exactly zero, with a gradient path, where none has.
    """
    weights = torch.triu(pairs, diagonal=1).to(student.dtype)
    count = weights.sum((1, 2))
    kernel = distance == "gaussian"
    edges_s, edges_t = (distance_matrix(x, "euclidean" if kernel else distance) for x in (student, teacher))
    if normalize == "mean":
        edges_s, edges_t = edges_s / mean_edge(edges_s, pairs), edges_t / mean_edge(edges_t, pairs)
    if kernel:
        edges_s, edges_t = (-torch.expm1(-x.square() / (2 * sigma**2)) for x in (edges_s, edges_t))
    lacking = edges_t - edges_s
    loss = ((lacking.relu() if side == "near" else lacking).square() * weights).sum((1, 2))
    if reduction == "mean":
        loss = loss / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)
