"""Class position distillation: the student must place each class where the teacher places it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from idd_seg.losses.adapters import comparable, require_equal_widths
from idd_seg.losses.grid import no_autocast
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.types import Batch, Outputs


def class_position(student: Tensor, teacher: Tensor, *, temperature: float, sigma: float) -> Tensor:
    r"""Squared distance between where the teacher and where the student places each class.

    .. math:: \frac{T^2}{N K} \sum_{n,k} \sum_{p,q} \delta_{nk}(p)\, g(p, q)\, \delta_{nk}(q), \quad
              \delta_{nk} = \mathrm{softmax}_p(s_{nk} / T) - \mathrm{softmax}_p(t_{nk} / T), \quad
              g(p, q) = \exp\big(-\lVert x_p - x_q \rVert^2 / (2 \sigma^2)\big)

    where :math:`x_p` in [0, 1]^2 is the place of position p in the picture. It is the squared maximum mean discrepancy
    (A. Gretton et al., JMLR 2012) between two distributions of a class over the picture, in [0, 2 T^2]: mass in the
    wrong place costs more the farther off it lies, up to about `sigma`. The distributions are those of channel-wise
    distillation (C. Shu et al., ICCV 2021), which compares them position by position. This project's own form of the
    idea of Zhang, Zhou and Tu, IJCAI 2022, that position is knowledge to be handed over.

    Args:
        student: logits (N, K, h, w).
        teacher: logits (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        temperature: T > 0 of the distributions.
        sigma: width of the kernel in sides of the picture, > 0.

    Returns:
        A scalar in float32. Every class of every image counts the same, however small it is.

    Raises:
        ValueError: if temperature or sigma is not positive, or the numbers of classes differ.
    """
    _check(temperature, sigma)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    apart = _places(student, temperature) - _places(teacher, temperature)
    down, across = (_kernel(side, sigma, apart) for side in apart.shape[-2:])
    with no_autocast(apart):
        # The Gaussian of two coordinates is a product: one matrix a side in place of one for all pairs of positions.
        felt = down @ apart @ across
    return (apart * felt).sum() * (temperature**2 / (apart.shape[0] * apart.shape[1]))


def _check(temperature: float, sigma: float) -> None:
    for name, value in (("temperature", temperature), ("sigma", sigma)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0 and finite, got {value}")


def _places(logits: Tensor, temperature: float) -> Tensor:
    """(N, K, h, w) -> how the mass of each class is spread over the positions, which sums to 1."""
    return torch.softmax(logits.flatten(2) / temperature, dim=2).view(logits.shape)


def _kernel(side: int, sigma: float, like: Tensor) -> Tensor:
    """Gaussian (side, side) of the distances between the cells of a side, measured in sides."""
    place = _cells(side, like)
    return torch.exp(-(place[:, None] - place).square() / (2 * sigma**2))


def _cells(side: int, like: Tensor) -> Tensor:
    """Centres (side,) of the cells of a side, in [0, 1]."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side


class ClassPosition(Term):
    """`class_position` of the logits.

    Raises:
        ValueError: for a negative weight, or a temperature or sigma that is not positive.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 4.0,
        sigma: float = 0.1,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        _check(temperature, sigma)
        self.temperature, self.sigma = float(temperature), float(sigma)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        theirs = teacher_of(teacher, self).logits
        return class_position(student.logits, theirs, temperature=self.temperature, sigma=self.sigma)

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the mean distance between the centres of a class in both networks, in sides of the picture."""
        ours, theirs = comparable(student.logits, teacher_of(teacher, self).logits)
        shift = _centres(_places(ours, self.temperature)) - _centres(_places(theirs, self.temperature))
        return {"shift": torch.linalg.vector_norm(shift, dim=-1).mean()}


def _centres(places: Tensor) -> Tensor:
    """(N, K, h, w) distributions -> (N, K, 2): their means, down and across, in [0, 1]."""
    height, width = places.shape[-2:]
    rows, columns = _cells(height, places), _cells(width, places)
    return torch.stack([(places.sum(3) * rows).sum(2), (places.sum(2) * columns).sum(2)], dim=-1)
