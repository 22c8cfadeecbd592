"""Class position distillation: the student must place each class where the teacher places it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from idd_seg.losses.cwd import channel_wise
from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.grid import no_autocast
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.types import Batch, Outputs

# Below it a share of a class's mass counts as none: its logarithm, and the gradient of that, stay finite.
_NO_MASS = 1e-12


def class_position(student: Tensor, teacher: Tensor, *, temperature: float, sigmas: Sequence[float]) -> Tensor:
    r"""Divergence between where the teacher and where the student places each class, at several scales.

    .. math:: \frac{T^2}{N K |\Sigma|} \sum_{\sigma \in \Sigma} \sum_{n,k}
              \mathrm{KL}\big(G_\sigma\, \mathrm{softmax}_p(t_{nk} / T) \,\|\,
              G_\sigma\, \mathrm{softmax}_p(s_{nk} / T)\big), \quad
              G_\sigma(p, q) \propto \exp\big(-\lVert x_p - x_q \rVert^2 / (2 \sigma^2)\big), \quad
              \sum_p G_\sigma(p, q) = 1

    where :math:`x_p` in [0, 1]^2 is the place of position p in the picture: each distribution of a class over the
    picture is blurred by `sigma`, without loss of mass at the borders, so that mass in a wrong place near the right
    one costs less than mass far off. The distributions are those of channel-wise distillation (C. Shu et al., ICCV
    2021), which a `sigma` of 0 alone is: this adds to it what is right and wrong on coarser scales. This project's own
    form of the idea of Zhang, Zhou and Tu, IJCAI 2022, that position is knowledge to be handed over.

    Args:
        student: logits (N, K, h, w).
        teacher: logits (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        temperature: T > 0 of the distributions.
        sigmas: widths of the blurs in sides of the picture, >= 0; 0 does not blur.

    Returns:
        A scalar >= 0 in float32. Every class of every image counts the same, however small it is.

    Raises:
        ValueError: if the temperature is not positive, sigmas are none, negative or infinite, or the numbers of
            classes differ.
    """
    _check(temperature, sigmas)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    ours, theirs = class_places(student, temperature), class_places(teacher, temperature)
    total = student.new_zeros(())
    for sigma in sigmas:
        if sigma == 0:
            total = total + channel_wise(student, teacher, temperature=temperature)
        else:
            apart = divergence(blurred(theirs, sigma), blurred(ours, sigma))
            total = total + apart * (temperature**2 / (ours.shape[0] * ours.shape[1]))
    return total / len(sigmas)


def _check(temperature: float, sigmas: Sequence[float]) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, got {temperature}")
    check_sigmas(sigmas)


def check_sigmas(sigmas: Sequence[float]) -> None:
    """Raise a ValueError for widths of blurs that are none, negative or infinite."""
    if isinstance(sigmas, (str, int, float)) or not sigmas:
        raise ValueError(f"sigmas must be a list of at least one width, such as [0.0,0.05], got {sigmas}")
    for sigma in sigmas:
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigmas must be >= 0 and finite, got {sigma}")


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


def class_places(logits: Tensor, temperature: float) -> Tensor:
    """Return how the mass of each class of logits (N, K, h, w) is spread over the positions, which sums to 1."""
    return torch.softmax(logits.flatten(2) / temperature, dim=2).view(logits.shape)


def _kernel(side: int, sigma: float, like: Tensor) -> Tensor:
    """(side, side): column q is how the mass of cell q of a side spreads over its cells, and sums to 1."""
    place = _cells(side, like)
    # As a softmax, so that a sigma far below a cell leaves its mass in place.
    return torch.softmax(-(place[:, None] - place).square() / (2 * sigma**2), dim=0)


def _cells(side: int, like: Tensor) -> Tensor:
    """Centres (side,) of the cells of a side, in [0, 1]."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side


class ClassPosition(Term):
    """`class_position` of the logits.

    Raises:
        ValueError: for a negative weight, a temperature that is not positive, or sigmas that are none, negative or
            infinite.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 4.0,
        sigmas: Sequence[float] = (0.0, 0.05, 0.15),
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        _check(temperature, sigmas)
        self.temperature, self.sigmas = float(temperature), [float(sigma) for sigma in sigmas]

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        theirs = teacher_of(teacher, self).logits
        return class_position(student.logits, theirs, temperature=self.temperature, sigmas=self.sigmas)

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the mean distance between the centres of a class in both networks, in sides of the picture."""
        ours, theirs = comparable(student.logits, teacher_of(teacher, self).logits)
        shift = _centres(class_places(ours, self.temperature)) - _centres(class_places(theirs, self.temperature))
        return {"shift": torch.linalg.vector_norm(shift, dim=-1).mean()}


def _centres(places: Tensor) -> Tensor:
    """(N, K, h, w) distributions -> (N, K, 2): their means, down and across, in [0, 1]."""
    height, width = places.shape[-2:]
    rows, columns = _cells(height, places), _cells(width, places)
    return torch.stack([(places.sum(3) * rows).sum(2), (places.sum(2) * columns).sum(2)], dim=-1)
