"""Class position distillation: the student must place each class where the teacher places it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.spatial_distributions import (
    blurred,
    centres,
    check_sigmas,
    divergence,
    spatial_divergence,
    spatial_softmax,
)
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.ops.validation import require_above
from idd_seg.types import Batch, Outputs


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
    ours, theirs = spatial_softmax(student, temperature), spatial_softmax(teacher, temperature)
    total = student.new_zeros(())
    for sigma in sigmas:
        if sigma == 0:
            total = total + spatial_divergence(student, teacher, temperature)
        else:
            apart = divergence(blurred(theirs, sigma), blurred(ours, sigma))
            total = total + apart * (temperature**2 / (ours.shape[0] * ours.shape[1]))
    return total / len(sigmas)


def _check(temperature: float, sigmas: Sequence[float]) -> None:
    require_above("temperature", temperature, 0)
    check_sigmas(sigmas)


class ClassPosition(Term):
    """`class_position` of the logits.

    Raises:
        ValueError: for a negative weight, a temperature that is not positive, or sigmas that are none, negative or
            infinite.
    """

    label_use = "none"

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
        shift = centres(spatial_softmax(ours, self.temperature)) - centres(spatial_softmax(theirs, self.temperature))
        return {"shift": torch.linalg.vector_norm(shift, dim=-1).mean()}
