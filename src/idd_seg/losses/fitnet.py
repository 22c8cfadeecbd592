"""Hints: the student's features are the teacher's, but for a linear map."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable, require_equal_widths
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_choice
from idd_seg.types import Batch, Outputs

Adapted = Literal["always", "widths"]


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference between the teacher's features and the student's.

    .. math:: \frac{1}{N C P} \sum_{n,c,p} \big(s_{ncp} - t_{ncp}\big)^2

    A. Romero et al., "FitNets: hints for thin deep nets", ICLR 2015.

    Args:
        student: features (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: if the widths differ.
    """
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    return (student - teacher).square().mean()


class Hint(AdaptedTerm):
    """`hint` of the maps named `tap`, the student's through a 1 x 1 convolution that is trained with it.

    Args:
        adapter: `always` has the convolution, as published; `widths` has it only where the widths differ, so that
            features of equal width must agree channel by channel. Logits have none.

    Raises:
        ValueError: for a negative weight, an unknown `adapter`, or a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        adapter: Adapted = "always",
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        require_choice("adapter", adapter, get_args(Adapted))
        super().__init__(weight, tap, always=adapter == "always", schedule=schedule)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return hint(*self.maps(student, teacher))
