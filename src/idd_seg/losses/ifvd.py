"""Intra-class feature variation: how far each pixel's feature turns away from the mean of its class."""

from __future__ import annotations

from torch import Tensor

from idd_seg.losses.ops.adapters import MapTerm, comparable
from idd_seg.losses.ops.cells import cells_of, columns_for
from idd_seg.losses.ops.class_cosines import class_cosines
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.types import Batch, Outputs


def intra_class_variation(
    student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, *, ignore_index: int = 255
) -> Tensor:
    r"""Mean squared difference between the teacher's and the student's similarity of a pixel to its class.

    .. math:: \frac{1}{|V|} \sum_{p \in V} \big(m^s(p) - m^t(p)\big)^2, \quad m(p) = \cos\big(f(p), \mu_{y(p)}\big)

    where :math:`\mu_k` is the mean feature of class k in the image of p, and V holds the positions that have a class.
    Y. Wang et al., "Intra-class feature variation distillation for semantic segmentation", ECCV 2020. Gradient flows
    through the means too.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        labels: (N, H, W) int64, read nearest on the student's grid; ids outside 0..num_classes-1 and `ignore_index`
            take no part and are not counted.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every pixel is ignored.
    """
    student, teacher = comparable(student, teacher)
    size = student.shape[-2:]
    columns = columns_for([nearest_labels(labels, size)], num_classes, ignore_index, world=False)
    cells = cells_of(labels, size, columns, ignore_index, "nearest", student.dtype)
    assert cells.index is not None
    difference = class_cosines(student, cells) - class_cosines(teacher, cells)
    return masked_mean(difference.square(), cells.index < len(columns))


class IntraClassVariation(MapTerm):
    """`intra_class_variation` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, or a tap that a network does not give.
    """

    label_use = "classes"

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        ignore_index: int = 255,
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return intra_class_variation(
            *self.maps(student, teacher), batch.label, self.num_classes, ignore_index=self.ignore_index
        )
