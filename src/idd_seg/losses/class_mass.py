"""Class mass distillation: each class's share of probability must lie where the teacher's lies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.spatial_distributions import blurred, check_sigmas, divergence
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.types import Batch, Outputs


def class_mass(student: Tensor, teacher: Tensor, *, sigmas: Sequence[float]) -> Tensor:
    r"""Divergence between where the teacher's and the student's probability of each class lies, at several scales.

    .. math:: \frac{1}{K |\Sigma|} \sum_{\sigma \in \Sigma} \sum_k
              \mathrm{KL}\big(G_\sigma M^t_k \,\|\, G_\sigma M^s_k\big), \quad
              M_k(n, p) = \frac{P(k \mid n, p)}{\sum_{n', p'} P(k \mid n', p')}

    where P are the probabilities of the classes at position p of image n, so that :math:`M_k` is how the mass of class
    k is spread over the positions of all images of the batch; :math:`G_\sigma` spreads it within its image as in
    `class_position`. How much mass there is does not matter: a class that the student hardly believes in anywhere is
    pulled to its places as strongly as one that covers half of the picture, and an image without it asks for nothing.
    `class_position` looks at each image and each channel of logits by itself, and at differences of logits; this looks
    at what the classes take from each other. A form of this project's own of the idea of Zhang, Zhou and Tu, IJCAI
    2022, that position is knowledge to be handed over; that scale does not matter is after T. Huang et al., NeurIPS
    2022.

    Args:
        student: logits (N, K, h, w).
        teacher: logits (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        sigmas: widths of the blurs in sides of the picture, >= 0; 0 does not blur.

    Returns:
        A scalar >= 0 in float32. Every class counts the same. With several processes, of the images of each.

    Raises:
        ValueError: if sigmas are none, negative or infinite, or the numbers of classes differ.
    """
    check_sigmas(sigmas)
    require_equal_widths(student, teacher)
    ours, theirs = (log_masses(x) for x in comparable(student, teacher))
    total = ours.new_zeros(())
    for sigma in sigmas:
        if sigma == 0:
            total = total + (theirs.exp() * (theirs - ours)).sum()
        else:
            total = total + divergence(blurred(theirs.exp(), sigma), blurred(ours.exp(), sigma))
    return total / (len(sigmas) * ours.shape[1])


def log_masses(logits: Tensor) -> Tensor:
    """Return the logarithms of how the mass of each class of logits (N, K, h, w) is spread; each class sums to 1."""
    logs = torch.log_softmax(logits, dim=1)
    return logs - logs.transpose(0, 1).flatten(1).logsumexp(1)[None, :, None, None]


class ClassMass(Term):
    """`class_mass` of the logits.

    Raises:
        ValueError: for a negative weight, or sigmas that are none, negative or infinite.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        sigmas: Sequence[float] = (0.0, 0.05, 0.15),
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        check_sigmas(sigmas)
        self.sigmas = [float(sigma) for sigma in sigmas]

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return class_mass(student.logits, teacher_of(teacher, self).logits, sigmas=self.sigmas)

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the share of a class's mass, 0 to 1, that lies elsewhere than the teacher's; mean over the classes."""
        ours, theirs = comparable(student.logits, teacher_of(teacher, self).logits)
        apart = (log_masses(ours).exp() - log_masses(theirs).exp()).abs()
        return {"elsewhere": apart.sum() / (2 * ours.shape[1])}
