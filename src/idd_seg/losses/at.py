"""Attention transfer: where a feature map is strong."""

from __future__ import annotations

from torch import Tensor

from idd_seg.losses.ops.adapters import MapTerm, comparable, unit
from idd_seg.types import Batch, Outputs


def _attention(features: Tensor) -> Tensor:
    """Strength (N, P) of each position, of length 1 in each image."""
    return unit(features.square().mean(1).flatten(1), dim=1)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference between the teacher's and the student's attention maps.

    .. math:: \frac{1}{N P} \sum_{n,p} \big(a^s_{np} - a^t_{np}\big)^2, \quad
              a_n = \frac{q_n}{\lVert q_n \rVert_2}, \quad q_{np} = \frac{1}{C} \sum_c f_{ncp}^2

    S. Zagoruyko and N. Komodakis, "Paying more attention to attention", ICLR 2017. An attention map has length 1, so
    its elements are of the order of :math:`1 / \sqrt{P}` and the loss at most 2 / P: hence weights in the thousands.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.

    Returns:
        A scalar in float32. The attention of a map of zeros is zero everywhere.
    """
    student, teacher = comparable(student, teacher)
    return (_attention(student) - _attention(teacher)).square().mean()


class AttentionTransfer(MapTerm):
    """`attention_transfer` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, or a tap that a network does not give.
    """

    label_use = "none"

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return attention_transfer(*self.maps(student, teacher))
