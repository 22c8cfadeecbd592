"""DIST: probabilities that go together with the teacher's, not equal ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.ops.validation import require_at_least
from idd_seg.types import Batch, Outputs

# A row whose standard deviation is this small beside its root mean square is constant but for rounding.
CONSTANT = 1e-6


def _check_factors(beta: float, gamma: float) -> None:
    require_at_least("beta", beta, 0)
    require_at_least("gamma", gamma, 0)


def _deviation(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Deviation of rows (R, n) from their mean over the columns `counted`, in length 1, and which rows are constant.

    A constant row's deviation is zero and gets no gradient: nothing is divided by the rounding that it is.
    """
    if counted is None:
        deviation = x - x.mean(1, keepdim=True)
    else:
        x = x * counted
        deviation = (x - x.sum(1, keepdim=True) / counted.sum().clamp(min=1)) * counted
    length = torch.linalg.vector_norm(deviation, dim=1, keepdim=True)
    constant = length <= CONSTANT * torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return deviation / torch.where(constant, torch.inf, length), constant[:, 0]


def correlation(x: Tensor, y: Tensor, counted: Tensor | None = None) -> Tensor:
    """Pearson's correlation (R,) of the rows of x and y (R, n), over the columns where `counted` (n,) is true.

    Two constant rows agree: 1. A constant row and one that varies have nothing in common: 0.
    """
    (dx, constant_x), (dy, constant_y) = _deviation(x, counted), _deviation(y, counted)
    return torch.where(constant_x & constant_y, 1.0, (dx * dy).sum(1))


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    ignore_index: int = 255,
) -> Tensor:
    r"""Lack of correlation between the teacher's and the student's class probabilities, by pixel and by class.

    .. math:: \beta \Big(1 - \frac{1}{|V|} \sum_{p \in V} \rho\big(S_{p \cdot}, T_{p \cdot}\big)\Big) +
              \gamma \Big(1 - \frac{1}{K} \sum_k \rho\big(S_{V k}, T_{V k}\big)\Big)

    where S and T are probabilities, pixels of all images by classes, :math:`\rho` is Pearson's correlation and V holds
    the pixels that count. T. Huang et al., "Knowledge distillation from a stronger teacher", NeurIPS 2022. The first
    part says nothing with fewer than three classes: two probabilities that sum to 1 correlate by 1 or -1.

    Args:
        student_logits: (N, K, h, w).
        teacher_logits: (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W); pixels of `ignore_index` on the student's grid are in neither correlation.
        beta: >= 0, factor of the correlation over classes, at each pixel.
        gamma: >= 0, factor of the correlation over pixels, for each class.

    Returns:
        A scalar in float32, from 0 to 2 (beta + gamma); exactly zero, with a gradient path, where every pixel is
        ignored.

    Raises:
        ValueError: if the numbers of classes differ or a factor is negative.
    """
    _check_factors(beta, gamma)
    require_equal_widths(student_logits, teacher_logits)
    student, teacher = comparable(student_logits, teacher_logits)
    size = student.shape[-2:]
    # Rows are classes, columns the pixels of all images.
    ours, theirs = (F.softmax(side, dim=1).transpose(0, 1).flatten(1) for side in (student, teacher))
    valid = torch.ones_like(ours[0], dtype=torch.bool)
    if labels is not None:
        valid = nearest_labels(labels, size).flatten() != ignore_index
    by_pixel = masked_mean(1 - correlation(ours.T, theirs.T), valid)
    by_class = (1 - correlation(ours, theirs, valid)).mean()
    return beta * by_pixel + gamma * by_class


class Dist(Term):
    """`dist` as a term. Of the labels it reads which pixels are ignored, and no class.

    Raises:
        ValueError: if the weight or a factor is negative.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        _check_factors(beta, gamma)
        self.beta, self.gamma, self.ignore_index = float(beta), float(gamma), ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        logits = teacher_of(teacher, self).logits
        return dist(
            student.logits, logits, batch.label, beta=self.beta, gamma=self.gamma, ignore_index=self.ignore_index
        )
