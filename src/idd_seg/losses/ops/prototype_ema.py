"""Moving averages of class prototypes, for classes that seldom meet in one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from idd_seg.distributed.collectives import sum_over_ranks
from idd_seg.losses.ops.class_distances import both
from idd_seg.ops.precision import Widening


class PrototypeEMA(Widening):
    """Exponential moving averages of the teacher's and the student's prototypes across steps.

    Classes that seldom meet in one batch then still have edges: a class that is absent now stands in with its
    average, without gradient. A pair takes part when at least one of its classes is present.
    """

    def __init__(self, num_classes: int, student_width: int, teacher_width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.student: Tensor
        self.teacher: Tensor
        self.seen: Tensor
        self.register_buffer("student", torch.zeros(num_classes, student_width))
        self.register_buffer("teacher", torch.zeros(num_classes, teacher_width))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def complete(
        self, student: Tensor, teacher: Tensor, present: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fill absent prototypes from memory.

        Args:
            student, teacher: prototypes (G, c, Cs) and (G, c, Ct).
            present: (G, c) bool.
            classes: (c,) their ids.

        Returns:
            Both sides' prototypes of the k classes that are present or remembered, and the pairs (G, k, k) that count.
        """
        student, teacher, there, present = self.filled(student, teacher, present, classes)
        return student, teacher, both(there) & (present[:, :, None] | present[:, None, :])

    def filled(
        self, student: Tensor, teacher: Tensor, present: Tensor, classes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return both sides' prototypes as `complete` does, and which (G, k) are there, and which present now."""
        present, student, teacher = (self._spread(x, classes) for x in (present, student, teacher))
        # Classes that were never seen would only cost: an edge list grows with the square of the classes.
        known = (present.any(0) | self.seen).nonzero().flatten()
        present, seen = present[:, known], self.seen[known]
        now = present[..., None]
        student = torch.where(now, student[:, known], self.student[known].to(student.dtype))
        teacher = torch.where(now, teacher[:, known], self.teacher[known].to(teacher.dtype))
        return student, teacher, present | seen, present

    def _spread(self, x: Tensor, classes: Tensor) -> Tensor:
        """(G, c, ...) of some classes -> (G, num_classes, ...), zero for the others."""
        if len(classes) == len(self.seen):
            return x
        return x.new_zeros(len(x), len(self.seen), *x.shape[2:]).index_copy(1, classes, x)

    @torch.no_grad()
    def remember(self, student: Tensor, teacher: Tensor, present: Tensor, classes: Tensor) -> None:
        """Move the averages towards the mean of this step's graphs in which a class is present, over all ranks."""
        present, student, teacher = (self._spread(x, classes) for x in (present, student, teacher))
        count = sum_over_ranks(present.sum(0))
        now = count > 0
        weights = present.to(self.student.dtype)[..., None]
        for memory, prototypes in ((self.student, student), (self.teacher, teacher)):
            mean = sum_over_ranks((prototypes.to(memory.dtype) * weights).sum(0)) / count.clamp(min=1)[:, None]
            kept = torch.where(self.seen[:, None], memory.lerp(mean, 1 - self.momentum), mean)
            memory.copy_(torch.where(now[:, None], kept, memory))
        self.seen |= now
