"""Augmentation-free dense contrastive distillation: a group of channels must find its like in the teacher's patch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import AdaptedTerm, comparable, require_equal_widths
from idd_seg.losses.ops.grid import no_autocast
from idd_seg.losses.ops.masked_generation import Generator, check_mask_ratio, generated_from, kept_positions
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import require_tap
from idd_seg.ops.validation import require_above, require_at_least, require_whole
from idd_seg.types import Batch, Outputs


def dense_contrast(
    student: Tensor, teacher: Tensor, *, pool: int = 4, patch: int = 4, groups: int = 16, temperature: float = 0.07
) -> Tensor:
    r"""Mean cross-entropy with which a part of the student's features finds the same part of the teacher's.

    .. math:: \frac{1}{|A|} \sum_{a \in A} -\log \frac{e^{-\lVert s_a - t_a \rVert_1 / T}}
              {e^{-\lVert s_a - t_a \rVert_1 / T} + \sum_{b \in B(a)} e^{-\lVert s_a - t_b \rVert_1 / T}}

    Both maps are max-pooled and cut into patches; a part a is a group of neighbouring channels at a position, and B(a)
    holds the teacher's parts of the other groups at all positions of the patch. J. Fan et al., "Augmentation-free dense
    contrastive knowledge distillation for efficient semantic segmentation", NeurIPS 2023. The authors sum over the
    groups: their weight times `groups` is the weight of this mean.

    Memory beside the features: some tables of (patch^2 groups)^2 entries a patch, linear in the positions.

    Args:
        student: features (N, C, h, w), already in the teacher's width.
        teacher: (N, C, h', w'), brought to (h, w) bilinearly where the grids differ; takes no gradient.
        pool: cells of a side of a pooling window; windows that the border cuts off are left out.
        patch: pooled positions of a side of a patch; positions beyond the last whole patch are left out. A map that is
            smaller than a window or a patch is one.
        groups: parts of the channels, a divisor of C.
        temperature: T > 0.

    Returns:
        A scalar in float32; zero with a single group, which has nothing to be told from.

    Raises:
        ValueError: if the widths differ or are no multiple of `groups`, or an option is out of range.
    """
    _check_contrast(pool, patch, groups, temperature)
    require_equal_widths(student, teacher)
    _check_groups(student.shape[1], groups)
    student, teacher = comparable(student, teacher)
    ours, theirs = (_parts(_pooled(x, pool), patch, groups) for x in (student, teacher))
    with no_autocast(ours):
        similarity = torch.cdist(ours, theirs, p=1).neg() / temperature
    group = torch.arange(ours.shape[1], device=ours.device) % groups
    left_out = group[:, None] == group
    left_out.fill_diagonal_(False)
    positive = similarity.diagonal(dim1=1, dim2=2)
    return (similarity.masked_fill(left_out, -torch.inf).logsumexp(2) - positive).mean()


def _pooled(x: Tensor, pool: int) -> Tensor:
    height, width = x.shape[-2:]
    return x if pool == 1 else F.max_pool2d(x, (min(pool, height), min(pool, width)))


def _parts(x: Tensor, patch: int, groups: int) -> Tensor:
    """(N, C, h, w) -> (patches, positions of a patch * groups, C / groups), the group running fastest."""
    n, width, height, across = x.shape
    rows, columns = min(patch, height), min(patch, across)
    down, beside = height // rows, across // columns
    cut = x[..., : down * rows, : beside * columns].reshape(n, groups, width // groups, down, rows, beside, columns)
    return cut.permute(0, 3, 5, 4, 6, 1, 2).reshape(n * down * beside, rows * columns * groups, width // groups)


def _check_groups(width: int, groups: int) -> None:
    if width % groups:
        raise ValueError(f"groups={groups} must divide the teacher's {width} channels")


def _check_contrast(pool: int, patch: int, groups: int, temperature: float) -> None:
    for name, value in (("pool", pool), ("patch", patch), ("groups", groups)):
        require_whole(name, value, 1)
    require_above("temperature", temperature, 0)


class DenseContrast(AdaptedTerm):
    r"""Masked regression and `dense_contrast` of what a `Generator` makes of a part of the student's features.

    .. math:: w_r \frac{1}{N C P} \sum_{n,c,p} \big(G(s \cdot m)_{ncp} - t_{ncp}\big)^2 + w_c \, L_{contrast}

    Adapter and generator are trained with the student and are no part of it. Labels are not read.

    Args:
        regression_weight, contrast_weight: of the two means per element; at least one above 0.
        mask_ratio: share of the positions that are dropped, in [0, 1), drawn anew at each step.
        pool, patch, groups, temperature: see `dense_contrast`.
        tap: `stage1` to `stage4` of the backbone, or `head`.

    Raises:
        ValueError: for an option out of range; in `bind`, for a tap that a network does not give, or a teacher's width
            that is no multiple of `groups`.
    """

    label_use = "none"

    def __init__(
        self,
        weight: float = 1.0,
        regression_weight: float = 33.0,
        contrast_weight: float = 0.08,
        mask_ratio: float = 0.75,
        pool: int = 4,
        patch: int = 4,
        groups: int = 16,
        temperature: float = 0.07,
        tap: str = "stage4",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, tap, schedule=schedule)
        require_at_least("regression_weight", regression_weight, 0)
        require_at_least("contrast_weight", contrast_weight, 0)
        if regression_weight == contrast_weight == 0:
            raise ValueError(
                "one of regression_weight, contrast_weight must be > 0; to leave afdcd out, set its weight to 0"
            )
        check_mask_ratio(mask_ratio)
        _check_contrast(pool, patch, groups, temperature)
        self.regression_weight, self.contrast_weight = float(regression_weight), float(contrast_weight)
        self.mask_ratio, self.temperature = float(mask_ratio), float(temperature)
        self.pool, self.patch, self.groups = pool, patch, groups
        self.generator: nn.Module = nn.Identity()

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        require_tap(teacher_channels, self.tap)
        super().bind(student_channels, teacher_channels)
        width = teacher_channels[self.tap]
        if self.contrast_weight > 0:
            _check_groups(width, self.groups)
        self.generator = Generator(width)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = comparable(*self.maps(student, teacher))
        generated = generated_from(ours, theirs, kept_positions(ours, self.mask_ratio), self.generator)
        losses = []
        if self.regression_weight > 0:
            losses.append(self.regression_weight * F.mse_loss(generated, theirs))
        if self.contrast_weight > 0:
            losses.append(self.contrast_weight * self._contrast(generated, theirs))
        return torch.stack(losses).sum()

    def _contrast(self, generated: Tensor, teacher: Tensor) -> Tensor:
        return dense_contrast(
            generated, teacher, pool=self.pool, patch=self.patch, groups=self.groups, temperature=self.temperature
        )
