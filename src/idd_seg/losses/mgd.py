"""Masked generative distillation: the teacher's features, generated from a part of the student's."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable
from idd_seg.losses.ops.masked_generation import (
    Generate,
    Generator,
    check_mask_ratio,
    generated_from,
    kept_positions,
)
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import require_tap
from idd_seg.types import Batch, Outputs


def masked_generation(student: Tensor, teacher: Tensor, kept: Tensor, generate: Generate) -> Tensor:
    r"""Mean squared difference between the teacher's features and those generated from a part of the student's.

    .. math:: \frac{1}{N C P} \sum_{n,c,p} \big(G(s \cdot m)_{ncp} - t_{ncp}\big)^2

    where m is 1 at the positions that are kept and 0 elsewhere, the same for all channels, and G a small network. All
    positions count, kept or not. Z. Yang et al., "Masked generative distillation", ECCV 2022. The authors sum over
    positions and channels and take the mean over images: their weight times C P is the weight of this mean.

    Args:
        student: features (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        kept: (N, 1, h, w) bool.
        generate: G, from features (N, C, h, w) and `kept` to the same shape; it sees what is kept alone.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: if the widths differ.
    """
    student, teacher = comparable(student, teacher)
    return F.mse_loss(generated_from(student, teacher, kept, generate), teacher)


class MaskedGeneration(AdaptedTerm):
    """`masked_generation` of the maps named `tap`, with a `Generator` that is trained with the student.

    Adapter and generator are no part of the student. Labels are not read.

    Args:
        mask_ratio: share of the positions that are dropped, in [0, 1), drawn anew at each step.
        tap: `stage1` to `stage4` of the backbone, or `head`.

    Raises:
        ValueError: for an option out of range; in `bind`, for a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        mask_ratio: float = 0.75,
        tap: str = "stage4",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule=schedule)
        check_mask_ratio(mask_ratio)
        self.mask_ratio = float(mask_ratio)
        self.generator: nn.Module = nn.Identity()

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        require_tap(teacher_channels, self.tap)
        super().bind(student_channels, teacher_channels)
        self.generator = Generator(teacher_channels[self.tap])

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = self.maps(student, teacher)
        return masked_generation(ours, theirs, kept_positions(ours, self.mask_ratio), self.generator)
