"""Boundary-privileged distillation: what the teacher knows at the edges of classes, and what of their bodies."""

from __future__ import annotations

import torch
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, require_equal_widths
from idd_seg.losses.ops.class_edges import check_width, class_edges
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.ops.spatial_distributions import masked_divergence
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, teacher_of
from idd_seg.ops.validation import require_above, require_at_least
from idd_seg.types import Batch, Outputs


def edges_and_bodies(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    width: int = 7,
    temperature: float = 1.0,
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    r"""Divergence of class probabilities at the edges, and of where each class lies beside them.

    .. math:: L_{edge} = \frac{1}{|E|} \sum_{(n,k) \in E} \frac{\sum_p m_{nkp}\, \varphi_{np}}{\sum_p m_{nkp}}, \quad
              \varphi_{np} = T^2\, \mathrm{KL}\big(\mathrm{softmax}_k(m_{nkp} t_{nkp} / T) \,\|\,
              \mathrm{softmax}_k(m_{nkp} s_{nkp} / T)\big)

    .. math:: L_{body} = \frac{T^2}{N K} \sum_{n,k} \mathrm{KL}\big(\mathrm{softmax}_p((1 - m_{nkp}) t_{nkp} / T) \,\|\,
              \mathrm{softmax}_p((1 - m_{nkp}) s_{nkp} / T)\big)

    where m is how much of a cell is edge of class k, by `class_edges`, and E holds the classes of each image that have
    an edge. L. Liu et al., "BPKD: boundary privileged knowledge distillation for semantic segmentation", WACV 2024.
    There the classes of an image are summed: that weight times their number is the weight of this mean.

    Args:
        student: logits (N, K, h, w).
        teacher: (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W) int64; cells whose pixel, read nearest, is of no class take no part.
        width: side of the window in pixels of the labels, odd, within which two classes make an edge.
        temperature: T > 0.

    Returns:
        Two scalars in float32; exactly zero, with a gradient path, where there is no edge, and where all is ignored.

    Raises:
        ValueError: if the temperature is not positive, the width is even, or the numbers of classes differ.
    """
    _check(width, temperature)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    num_classes, size = student.shape[1], student.shape[-2:]
    sampled = nearest_labels(labels, size).flatten(1)
    valid = (sampled >= 0) & (sampled < num_classes) & (sampled != ignore_index)
    edges = class_edges(labels, num_classes, size, width=width, ignore_index=ignore_index)
    edges = edges.flatten(2).to(student.dtype) * valid[:, None]
    body = masked_divergence(student, teacher, 1 - edges, valid, temperature)
    return _edge_loss(student, teacher, edges, temperature), masked_mean(body, valid.any(1, keepdim=True))


def _edge_loss(student: Tensor, teacher: Tensor, edges: Tensor, temperature: float) -> Tensor:
    """Mean over the classes (N, K) that have edges (N, K, P) of the divergence there."""
    ours, theirs = (torch.log_softmax(x.flatten(2) * edges / temperature, dim=1) for x in (student, teacher))
    apart = temperature**2 * (theirs.exp() * (theirs - ours)).sum(1)
    amount = edges.sum(2)
    by_class = (edges * apart[:, None]).sum(2) / torch.where(amount > 0, amount, 1)
    return masked_mean(by_class, amount > 0)


def _check(width: int, temperature: float) -> None:
    check_width(width)
    require_above("temperature", temperature, 0)


class BoundaryPrivileged(Term):
    r"""`edges_and_bodies` of the logits: :math:`w_e L_{edge} + w_b L_{body}`.

    Args:
        edge_weight, body_weight: of the two means; at least one above 0.
        width, temperature: see `edges_and_bodies`.

    Raises:
        ValueError: for an option out of range.
    """

    label_use = "classes"

    def __init__(
        self,
        weight: float = 1.0,
        edge_weight: float = 500.0,
        body_weight: float = 20.0,
        width: int = 7,
        temperature: float = 1.0,
        ignore_index: int = 255,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        require_at_least("edge_weight", edge_weight, 0)
        require_at_least("body_weight", body_weight, 0)
        if edge_weight == body_weight == 0:
            raise ValueError("one of edge_weight, body_weight must be > 0; to leave bpkd out, set its weight to 0")
        _check(width, temperature)
        self.edge_weight, self.body_weight = float(edge_weight), float(body_weight)
        self.width, self.temperature, self.ignore_index = width, float(temperature), ignore_index

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        edge, body = edges_and_bodies(
            student.logits,
            teacher_of(teacher, self).logits,
            batch.label,
            width=self.width,
            temperature=self.temperature,
            ignore_index=self.ignore_index,
        )
        return self.edge_weight * edge + self.body_weight * body
