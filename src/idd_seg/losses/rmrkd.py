"""How either network's prototypes see the features of both, masked generation, and channels in and out of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable, inverse_length, require_equal_widths
from idd_seg.losses.ops.cells import Cells, Columns, cells_of, columns_for
from idd_seg.losses.ops.class_products import class_products, inverse_roots
from idd_seg.losses.ops.class_relations import log_shares
from idd_seg.losses.ops.class_sums import class_sums
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.ops.masked_generation import Generator, check_mask_ratio, generated_from, kept_positions
from idd_seg.losses.ops.spatial_distributions import masked_divergence
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import require_tap, teacher_of
from idd_seg.ops.validation import require_above, require_at_least
from idd_seg.types import Batch, Outputs


def cross_relation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    temperature: float = 0.1,
    ignore_index: int = 255,
) -> Tensor:
    r"""Mean over classes of how differently the prototypes of either network see the features of both.

    .. math:: \frac{1}{|E|} \sum_{(n,k) \in E} \frac{T^2}{4} \sum_{\mu \in \{\mu^s_{nk}, \mu^t_{nk}\}} \sum_{R}
              \mathrm{KL}\big(\mathrm{softmax}_{p \in R}(\cos(\mu, t_{np}) / T) \,\|\,
              \mathrm{softmax}_{p \in R}(\cos(\mu, s_{np}) / T)\big)

    where :math:`\mu_{nk}` is the mean feature of class k in image n, E holds the classes that each image has, and R is
    first the positions of the class, then those of the other classes. RMRKD, Pattern Recognition 2025, as its authors'
    program has it; but theirs takes the softmax down each column of the map and reads labels bilinearly. Gradient flows
    through the student's prototypes where they meet its own features.

    Args:
        student: features (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W) int64, read nearest on the student's grid; ids outside 0..num_classes-1 and `ignore_index`
            take no part and are not counted.
        temperature: T > 0.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where every pixel is ignored.

    Raises:
        ValueError: if the temperature is not positive or the widths differ.
    """
    require_above("temperature", temperature, 0)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    columns = columns_for([nearest_labels(labels, student.shape[-2:])], num_classes, ignore_index, world=False)
    cells = cells_of(labels, student.shape[-2:], columns, ignore_index, "nearest", student.dtype)
    prototypes, pixels = _prototypes(student, teacher, cells)
    ours = _cosines(student, prototypes) / temperature
    theirs = _cosines(teacher, prototypes.detach()) / temperature
    inside, valid = _regions(cells)
    # Each region twice: for the prototypes of the student, and for those of the teacher.
    losses = torch.stack([_apart(ours, theirs, r.repeat(1, 2, 1)) for r in (inside, valid[:, None] & ~inside)]).sum(0)
    both = losses[:, : cells.columns] + losses[:, cells.columns :]
    return masked_mean(both * (temperature**2 / 4), pixels > 0)


def _prototypes(student: Tensor, teacher: Tensor, cells: Cells) -> tuple[Tensor, Tensor]:
    """Class means (N, 2 k, C), first the student's, then the teacher's, and the cells (N, k) of each class."""
    pixels = cells.pixels(student.dtype)
    sums = torch.cat([class_sums(student, cells), class_sums(teacher, cells)], dim=1)
    return sums / pixels.clamp(min=1).repeat(1, 2)[..., None], pixels


def _cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines (N, 2 k, P) of prototypes (N, 2 k, C) and features; 0 where one is zero."""
    products, squared = class_products(features, prototypes * inverse_length(prototypes, dim=2))
    return products * inverse_roots(squared)[:, None]


def _apart(student: Tensor, teacher: Tensor, region: Tensor) -> Tensor:
    """Divergence (N, 2 k) of how cosines (N, 2 k, P) are spread over a region; 0 over an empty one."""
    ours, theirs = (log_shares(x, region, 2) for x in (student, teacher))
    return (theirs.exp() * (theirs - ours)).sum(2)


def _regions(cells: Cells) -> tuple[Tensor, Tensor]:
    """Which cells (N, k, P) belong to each column, and which (N, P) to any."""
    assert cells.index is not None
    ids = torch.arange(cells.columns, device=cells.index.device)
    return cells.index[:, None] == ids[:, None], cells.index < cells.columns


def channels_inside_and_outside(
    student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 4.0, ignore_index: int = 255
) -> tuple[Tensor, Tensor]:
    r"""Mean over channels of the divergence of how a class's logits are spread, inside and outside of the class.

    .. math:: \frac{T^2}{N K} \sum_{n,k} \mathrm{KL}\big(\mathrm{softmax}_p(m_{nkp} t_{nkp} / T) \,\|\,
              \mathrm{softmax}_p(m_{nkp} s_{nkp} / T)\big)

    where m is 1 at the positions of class k and 0 elsewhere for the first value, and the reverse for the second.
    Logits outside of the mask take part as zeros, as in the authors' program; ignored pixels do not.

    Args:
        student: logits (N, K, h, w).
        teacher: (N, K, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        labels: (N, H, W) int64, read nearest on the student's grid.
        temperature: T > 0.

    Returns:
        Two scalars in float32; exactly zero, with a gradient path, where every pixel is ignored.

    Raises:
        ValueError: if the temperature is not positive or the numbers of classes differ.
    """
    require_above("temperature", temperature, 0)
    require_equal_widths(student, teacher)
    student, teacher = comparable(student, teacher)
    # A column for each channel, whether its class is present or not.
    every = torch.arange(student.shape[1] + 1, device=labels.device)
    columns = Columns(every[:-1], every)
    inside, valid = _regions(cells_of(labels, student.shape[-2:], columns, ignore_index, "nearest", student.dtype))
    counted = valid.any(1, keepdim=True)
    losses = []
    for mask in (inside, ~inside):
        apart = masked_divergence(student, teacher, mask.to(student.dtype), valid, temperature)
        losses.append(masked_mean(apart, counted))
    return losses[0], losses[1]


class CrossRelation(AdaptedTerm):
    r"""`cross_relation` and masked generation of the maps named `tap`, and `channels_inside_and_outside` of the logits.

    .. math:: w_r L_{relation} + w_g L_{generation} + w_i L_{inside} + w_o L_{outside}

    Adapter and generator are trained with the student and are no part of it. A part of weight 0 is left out.

    Args:
        relation_weight, generation_weight, inside_weight, outside_weight: of the means; at least one above 0.
        temperature: of the relations; `logit_temperature`, of the logits.
        mask_ratio: share of the positions that the generator does not see, in [0, 1).
        tap: `stage1` to `stage4` of the backbone, or `head`.

    Raises:
        ValueError: for an option out of range; in `bind`, for a tap that a network does not give.
    """

    label_use = "classes"

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        relation_weight: float = 64.0,
        generation_weight: float = 168.0,
        inside_weight: float = 4.0,
        outside_weight: float = 4.0,
        temperature: float = 0.1,
        logit_temperature: float = 4.0,
        mask_ratio: float = 0.75,
        ignore_index: int = 255,
        tap: str = "stage4",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule=schedule)
        self.weights = {
            "relation_weight": float(relation_weight),
            "generation_weight": float(generation_weight),
            "inside_weight": float(inside_weight),
            "outside_weight": float(outside_weight),
        }
        for name, value in self.weights.items():
            require_at_least(name, value, 0)
        if not any(self.weights.values()):
            raise ValueError(f"one of {', '.join(self.weights)} must be > 0; to leave rmrkd out, set its weight to 0")
        require_above("temperature", temperature, 0)
        require_above("logit_temperature", logit_temperature, 0)
        check_mask_ratio(mask_ratio)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.temperature, self.logit_temperature = float(temperature), float(logit_temperature)
        self.mask_ratio = float(mask_ratio)
        self.generator: nn.Module = nn.Identity()

    @property
    def teacher_maps(self) -> Sequence[str]:
        return super().teacher_maps if self._reads_features else ()

    @property
    def _reads_features(self) -> bool:
        return self.weights["relation_weight"] > 0 or self.weights["generation_weight"] > 0

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        require_tap(teacher_channels, self.tap)
        if self._reads_features:
            super().bind(student_channels, teacher_channels)
        if self.weights["generation_weight"] > 0:
            self.generator = Generator(teacher_channels[self.tap])

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        logits = teacher_of(teacher, self).logits
        losses = self._of_features(student, teacher, batch) if self._reads_features else []
        if self.weights["inside_weight"] > 0 or self.weights["outside_weight"] > 0:
            inside, outside = channels_inside_and_outside(
                student.logits,
                logits,
                batch.label,
                temperature=self.logit_temperature,
                ignore_index=self.ignore_index,
            )
            losses += [self.weights["inside_weight"] * inside, self.weights["outside_weight"] * outside]
        return torch.stack(losses).sum()

    def _of_features(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> list[Tensor]:
        ours, theirs = comparable(*self.maps(student, teacher))
        losses = []
        if (weight := self.weights["relation_weight"]) > 0:
            relation = cross_relation(
                ours,
                theirs,
                batch.label,
                self.num_classes,
                temperature=self.temperature,
                ignore_index=self.ignore_index,
            )
            losses.append(weight * relation)
        if (weight := self.weights["generation_weight"]) > 0:
            kept = kept_positions(ours, self.mask_ratio)
            losses.append(weight * F.mse_loss(generated_from(ours, theirs, kept, self.generator), theirs))
        return losses
