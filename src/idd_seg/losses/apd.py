"""Adaptive perspective distillation: how similar each pixel is to the centres of all classes."""

from __future__ import annotations

from torch import Tensor

from idd_seg.losses.ops.adapters import MapTerm, comparable, inverse_length
from idd_seg.losses.ops.cells import Cells, cells_of, columns_for
from idd_seg.losses.ops.class_relations import relation_divergence
from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.losses.ops.mean_products import mean_products, unit_map
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.ops.validation import require_above
from idd_seg.types import Batch, Outputs


def pixel_to_centre(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    temperature: float = 0.1,
    ignore_index: int = 255,
) -> Tensor:
    r"""Mean over pixels of the divergence between both networks' similarities of a pixel to the classes.

    .. math:: \frac{1}{|V|} \sum_{p \in V} \mathrm{KL}\big(\mathrm{softmax}_k(\cos(t_p, c^t_k) / T) \,\|\,
              \mathrm{softmax}_k(\cos(s_p, c^s_k) / T)\big), \quad
              c_k = \sum_{p: y(p) = k} \frac{f_p}{\lVert f_p \rVert}

    over the classes k of the batch. Z. Tian et al., "Adaptive perspective distillation for semantic segmentation",
    TPAMI 2022, its comparison of pixels with class centres. The authors divide by the number k of classes present too:
    their weight over k is the weight of this mean. Gradient flows through the centres.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        labels: (N, H, W) int64, read nearest on the student's grid; ids outside 0..num_classes-1 and `ignore_index`
            take no part and are not counted.
        temperature: T > 0.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where fewer than two classes are present. With several
        processes, centres are of the images of each.

    Raises:
        ValueError: if the temperature is not positive.
    """
    require_above("temperature", temperature, 0)
    student, teacher = comparable(student, teacher)
    columns = columns_for([nearest_labels(labels, student.shape[-2:])], num_classes, ignore_index, world=False)
    cells = cells_of(labels, student.shape[-2:], columns, ignore_index, "nearest", student.dtype)
    assert cells.index is not None
    present = cells.pixels(student.dtype).sum(0, keepdim=True) > 0
    ours, theirs = (_cosines(x, cells) / temperature for x in (student, teacher))
    return relation_divergence(ours, theirs, present, cells.index < cells.columns)


def _cosines(features: Tensor, cells: Cells) -> Tensor:
    """Cosines (N, k, P) of each cell to the centre of each column; 0 where feature or centre is zero."""
    means, products, _ = mean_products(unit_map(features), cells, "batch")
    return products * inverse_length(means, dim=2)


class PixelToCentre(MapTerm):
    """`pixel_to_centre` of the maps named `tap`.

    Raises:
        ValueError: for a negative weight, a temperature that is not positive, or a tap that a network does not give.
    """

    label_use = "classes"

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        temperature: float = 0.1,
        ignore_index: int = 255,
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule)
        require_above("temperature", temperature, 0)
        self.num_classes, self.temperature, self.ignore_index = num_classes, float(temperature), ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return pixel_to_centre(
            *self.maps(student, teacher),
            batch.label,
            self.num_classes,
            temperature=self.temperature,
            ignore_index=self.ignore_index,
        )
