"""Making the maps of two networks comparable: precision, grid, width, length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.grid import as_float32, no_autocast, resize_like
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.types import Outputs

LOGITS = "logits"


class Adapter(nn.Conv2d):
    """1 x 1 convolution from the student's width to the teacher's, computed in float32 (float64 stays)."""

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__(student_width, teacher_width, 1)

    def forward(self, input: Tensor) -> Tensor:
        x = as_float32(input)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        with no_autocast(x):
            return F.conv2d(x, self.weight.to(x.dtype), bias)


def adapter(student_width: int, teacher_width: int, *, always: bool = False) -> nn.Module:
    """Return an `Adapter`; where the widths are equal, the identity unless `always`."""
    if student_width == teacher_width and not always:
        return nn.Identity()
    return Adapter(student_width, teacher_width)


def comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps in the student's precision, float32 at least, on its grid; the teacher's without gradient.

    Args:
        student: (N, Cs, h, w).
        teacher: (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ.
    """
    student = as_float32(student)
    return student, resize_like(teacher.detach().to(student.dtype), student.shape[-2:])


def require_equal_widths(student: Tensor, teacher: Tensor) -> None:
    """Raise a ValueError that names the numbers of channels (N, C, ...) if they differ."""
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"the student has {student.shape[1]} channels, the teacher {teacher.shape[1]}")


def inverse_length(x: Tensor, dim: int) -> Tensor:
    """Return 1 / |x| along `dim`, which is kept with size 1; 0 for a vector of zeros, with gradient 0."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return torch.where(length > 0, length, torch.inf).reciprocal()


def unit(x: Tensor, dim: int) -> Tensor:
    """Divide vectors along `dim` by their length; a vector of zeros, as ReLU gives, stays and gets gradient 0."""
    return x * inverse_length(x, dim)


def map_of(outputs: Outputs, tap: str) -> Tensor:
    """Return one of a network's maps by its name: the logits, or a feature map."""
    return outputs.logits if tap == LOGITS else outputs.features[tap]


class MapTerm(Term):
    """A term that compares one map of both networks.

    Args:
        tap: `stage1` to `stage4` of the backbone, `head`, or `logits`.

    Raises:
        ValueError: if the weight is negative or not finite; in `bind`, for a tap that a network does not give.
    """

    def __init__(self, weight: float = 1.0, tap: str = "head", schedule: WeightSchedule | None = None) -> None:
        super().__init__(weight, schedule)
        self.tap = tap

    @property
    def teacher_maps(self) -> Sequence[str]:
        return () if self.tap == LOGITS else (self.tap,)

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        for channels in (student_channels, teacher_channels):
            require_tap({**channels, LOGITS: 0}, self.tap)

    def maps(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's map."""
        theirs = teacher_of(teacher, self)
        return map_of(student, self.tap), map_of(theirs, self.tap)


class AdaptedTerm(MapTerm):
    """A `MapTerm` whose student passes through an `adapter`, which is trained with the student and is no part of it.

    Args:
        always: adapt the student's map also where the widths are equal; logits are never adapted.
    """

    def __init__(
        self, weight: float = 1.0, tap: str = "head", always: bool = False, schedule: WeightSchedule | None = None
    ) -> None:
        super().__init__(weight, tap, schedule)
        self.always = always
        self.adapter: nn.Module = nn.Identity()

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        super().bind(student_channels, teacher_channels)
        if self.tap != LOGITS:
            self.adapter = adapter(student_channels[self.tap], teacher_channels[self.tap], always=self.always)

    def maps(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return the student's map in the teacher's width, and the teacher's map."""
        ours, theirs = super().maps(student, teacher)
        return self.adapter(ours), theirs
