"""My term: the student's features must point the same way as the teacher's."""

from __future__ import annotations

from torch import Tensor

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable, require_equal_widths, unit
from idd_seg.losses.ops.grid import masked_mean, nearest_labels, own_masked_mean
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.types import Batch, Outputs


def my_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, *, margin: float = 0.0, ignore_index: int = 255
) -> Tensor:
    r"""Mean over the labelled cells of how far the cosine of both features stays below 1 - margin.

    .. math:: \frac{1}{|V|} \sum_{p \in V} \max\big(0,\; 1 - m - \cos(s_p, t_p)\big)

    Author, "Title", conference and year.

    Args:
        student: features (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W); cells of `ignore_index` on the student's grid are left out and not counted.
        margin: m in [0, 2).

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every cell is ignored.

    Raises:
        ValueError: if the widths differ.
    """
    cosines, valid = _cosines(student, teacher, labels, ignore_index)
    return masked_mean((1 - margin - cosines).relu(), valid)


def _cosines(student: Tensor, teacher: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the cosines (N, 1, h, w) of the features, and the cells (N, 1, h, w) that count."""
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)  # float32, the student's grid, the teacher without gradient
    valid = nearest_labels(labels, student.shape[-2:])[:, None] != ignore_index
    return (unit(student, 1) * unit(teacher, 1)).sum(1, keepdim=True), valid


class MyTerm(AdaptedTerm):
    """`my_loss` of the maps named `tap`; features of another width than the teacher's pass through an adapter.

    Raises:
        ValueError: for a negative weight, a margin outside [0, 2), or a tap that a network does not give.
    """

    def __init__(
        self,
        weight: float = 1.0,
        margin: float = 0.0,
        tap: str = "head",
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule=schedule)
        if not 0 <= margin < 2:
            raise ValueError(f"margin must be in [0, 2), got {margin}")
        self.margin, self.ignore_index = float(margin), ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = self.maps(student, teacher)
        return my_loss(ours, theirs, batch.label, margin=self.margin, ignore_index=self.ignore_index)

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cosine on held-out images, logged as `val/my_term_cosine`."""
        return {"cosine": own_masked_mean(*_cosines(*self.maps(student, teacher), batch.label, self.ignore_index))}
