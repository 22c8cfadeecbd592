"""Attention-guided feature distillation: features weighed by channel and position, compared up to their scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.attention import Attention, pooled_attention
from idd_seg.losses.ops.connector import Connector
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.ops.validation import require_choice
from idd_seg.types import Batch, Outputs

TeacherAttention = Literal["fixed", "pooled"]


def scaled_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two maps, each divided by its root mean square over the whole batch.

    .. math:: \frac{1}{N C P} \sum_{n,c,p} \Big(\frac{s_{ncp}}{r_s} - \frac{t_{ncp}}{r_t}\Big)^2, \quad
              r_f^2 = \frac{1}{N C P} \sum_{n,c,p} f_{ncp}^2

    A. M. Mansourian et al., "Attention-guided feature distillation for semantic segmentation", 2024. The authors divide
    by lengths, sum, and divide by the number of images: their weight over N is the weight of this mean.

    Args:
        student: (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.

    Returns:
        A scalar in float32, 0 to 4; a map of zeros stays one. With several processes, of the images of each.

    Raises:
        ValueError: if the widths differ.
    """
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    return (_scaled(student) - _scaled(teacher)).square().mean()


def _scaled(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x)
    return x * (math.sqrt(x.numel()) / torch.where(size > 0, size, torch.inf))


class AttentionGuided(Term):
    """`scaled_distance` of maps behind an `Attention`, the student's also behind a `Connector`: the mean over `taps`.

    The student's attention and the connector are trained with the student and are no part of it. Labels are not read.

    Args:
        taps: `stage1` to `stage4` of the backbone, `head`; at least one.
        teacher_attention: `fixed`, an attention as it was drawn, which nothing trains, as in the authors' program;
            `pooled`, one without parameters.

    Raises:
        ValueError: for an option out of range; in `bind`, for a tap that a network does not give.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        taps: Sequence[str] = ("stage4", "head"),
        teacher_attention: TeacherAttention = "fixed",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_choice("teacher_attention", teacher_attention, get_args(TeacherAttention))
        if isinstance(taps, str) or not taps or len(set(taps)) < len(taps):
            raise ValueError(f"taps must be a list of different feature maps, such as [stage4,head], got {taps}")
        self.taps, self.teacher_attention = tuple(taps), teacher_attention
        self.students, self.connectors, self.teachers = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()

    @property
    def teacher_maps(self) -> Sequence[str]:
        return self.taps

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        for tap in self.taps:
            for channels in (student_channels, teacher_channels):
                require_tap(channels, tap)
            self.students[tap] = Attention(student_channels[tap])
            self.connectors[tap] = Connector(student_channels[tap], teacher_channels[tap])
            if self.teacher_attention == "fixed":
                self.teachers[tap] = Attention(teacher_channels[tap], fixed=True)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        theirs = teacher_of(teacher, self)
        losses = []
        for tap in self.taps:
            attention, connector = self.students[tap], self.connectors[tap]
            assert isinstance(attention, Attention)
            assert isinstance(connector, Connector)
            ours, refined = comparable(student.features[tap], self._refined(tap, theirs.features[tap]))
            losses.append(connector.distance(ours, *attention.weights(ours), refined))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _refined(self, tap: str, teacher: Tensor) -> Tensor:
        refined: Tensor = self.teachers[tap](teacher) if tap in self.teachers else pooled_attention(teacher)
        return refined
