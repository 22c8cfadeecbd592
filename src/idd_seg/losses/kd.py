"""Pixel-wise distillation of class probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.grid import as_float32, masked_mean, nearest_labels, resize_like
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.ops.validation import require_above
from idd_seg.types import Batch, Outputs


def pixel_wise(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Mean over pixels of the divergence between the teacher's and the student's class probabilities.

    .. math:: T^2 \, \frac{1}{P} \sum_p \mathrm{KL}\big(\mathrm{softmax}(t_p / T) \,\|\, \mathrm{softmax}(s_p / T)\big)

    G. Hinton et al., "Distilling the knowledge in a neural network", 2015, pixel by pixel as in Y. Liu et al.,
    "Structured knowledge distillation for semantic segmentation", CVPR 2019 (its Pi).

    Args:
        student_logits: (N, K, h, w).
        teacher_logits: (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W); pixels of `ignore_index` on the student's grid are left out and not counted.
        temperature: T > 0.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every pixel is ignored.

    Raises:
        ValueError: if the temperature is not positive or the numbers of classes differ.
    """
    require_above("temperature", temperature, 0)
    if student_logits.shape[1] != teacher_logits.shape[1]:
        raise ValueError(f"the student has {student_logits.shape[1]} classes, the teacher {teacher_logits.shape[1]}")
    size = student_logits.shape[-2:]
    student = F.log_softmax(as_float32(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(resize_like(as_float32(teacher_logits.detach()), size) / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    if labels is None:
        return temperature**2 * divergence.mean()
    valid = nearest_labels(labels, size) != ignore_index
    return temperature**2 * masked_mean(divergence, valid)


class PixelWise(Term):
    """`pixel_wise` as a term. Of the labels it reads which pixels are ignored, and no class.

    Raises:
        ValueError: if the weight is negative or the temperature not positive.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 1.0,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_above("temperature", temperature, 0)
        self.temperature = float(temperature)
        self.ignore_index = ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        logits = teacher_of(teacher, self).logits
        return pixel_wise(
            student.logits, logits, batch.label, temperature=self.temperature, ignore_index=self.ignore_index
        )
