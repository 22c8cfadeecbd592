"""How something is spread over the positions of a picture, and how far two such distributions are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.class_relations import log_shares
from idd_seg.losses.ops.grid import no_autocast
from idd_seg.ops.validation import require_at_least

# Below it a share of a distribution's mass counts as none: its logarithm, and the gradient of that, stay finite.
_NO_MASS = 1e-12


def check_sigmas(sigmas: Sequence[float]) -> None:
    """Raise a ValueError for widths of blurs that are none, negative or infinite."""
    if isinstance(sigmas, (str, int, float)) or not sigmas:
        raise ValueError(f"sigmas must be a list of at least one width, such as [0.0,0.05], got {sigmas}")
    for sigma in sigmas:
        require_at_least("sigmas", sigma, 0)


def spatial_softmax(x: Tensor, temperature: float) -> Tensor:
    """Return how each channel of (N, C, h, w) is spread over the positions: a softmax over them, which sums to 1."""
    return torch.softmax(x.flatten(2) / temperature, dim=2).view(x.shape)


def spatial_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Mean over channels of KL(teacher || student) of the distributions of `spatial_softmax`, times :math:`T^2`.

    Args:
        student, teacher: (N, C, h, w), of one precision and grid. By their logarithms, so that nothing underflows.
    """
    ours = F.log_softmax(student.flatten(2) / temperature, dim=2)
    theirs = F.log_softmax(teacher.flatten(2) / temperature, dim=2)
    total = F.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total * (temperature**2 / (student.shape[0] * student.shape[1]))


def masked_divergence(student: Tensor, teacher: Tensor, mask: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return, for each channel, the divergence (N, K) of the distributions of masked logits, times T^2.

    Args:
        student, teacher: (N, K, h, w), of one precision and grid.
        mask: (N, K, P), 0 to 1, that the logits are multiplied by: where it is 0 they take part as zeros.
        valid: (N, P) bool, positions that take part.

    Returns:
        0 where an image has no valid position.
    """
    ours, theirs = (log_shares(x.flatten(2) * mask / temperature, valid[:, None], 2) for x in (student, teacher))
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(2)


def divergence(true: Tensor, found: Tensor) -> Tensor:
    """Sum of the divergences KL(true || found) of distributions over the last two dimensions."""
    true, found = true.clamp_min(_NO_MASS), found.clamp_min(_NO_MASS)
    return (true * (true.log() - found.log())).sum()


def blurred(places: Tensor, sigma: float) -> Tensor:
    """Spread the mass of each position of (N, K, h, w) distributions around it, by `sigma` > 0 sides of the picture."""
    down, across = (_kernel(side, sigma, places) for side in places.shape[-2:])
    with no_autocast(places):
        # The Gaussian of two coordinates is a product: one matrix a side in place of one for all pairs of positions.
        return down @ places @ across.T


def centres(places: Tensor) -> Tensor:
    """(N, K, h, w) distributions -> (N, K, 2): their means, down and across, in [0, 1]."""
    height, width = places.shape[-2:]
    rows, columns = _cells(height, places), _cells(width, places)
    return torch.stack([(places.sum(3) * rows).sum(2), (places.sum(2) * columns).sum(2)], dim=-1)


def _kernel(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side): column q is how the mass of cell q of a side spreads over its cells, and sums to 1."""
    place = _cells(side, like)
    # As a softmax, so that a sigma far below a cell leaves its mass in place.
    return torch.softmax(-(place[:, None] - place).square() / (2 * sigma**2), dim=0)


def _cells(side: int, like: Tensor) -> Tensor:
    """Centres (side,) of the cells of a side, in [0, 1]."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side
