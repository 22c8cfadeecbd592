"""Inter-class distance distillation: the student learns how far apart the teacher keeps the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import LOGITS, map_of
from idd_seg.losses.ops.cells import RESIZES, Resize
from idd_seg.losses.ops.class_distances import Distance, Normalize, Reduction, both, distance_matrix, graph_distance
from idd_seg.losses.ops.prototype_ema import PrototypeEMA
from idd_seg.losses.ops.prototypes import SCOPES, Scope, class_means, common_prototypes
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.ops.validation import require_above, require_choice
from idd_seg.types import Batch, Outputs

__all__ = ["InterClassDistance", "class_means", "distance_matrix", "inter_class_distance"]


def _enough(pixels: Tensor, min_pixels: float) -> Tensor:
    """Tell where a class is present; shares of cells that add up to `min_pixels` but for rounding are enough."""
    return pixels >= min_pixels * (1 - 1e-5)


def _check_options(normalize: str, scope: str, min_pixels: float, resize: str, reduction: str, distance: str) -> None:
    require_choice("normalize", normalize, get_args(Normalize))
    require_choice("scope", scope, SCOPES)
    require_choice("resize", resize, RESIZES)
    require_choice("reduction", reduction, get_args(Reduction))
    require_choice("distance", distance, get_args(Distance))
    require_above("min_pixels", min_pixels, 0)


def inter_class_distance(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    normalize: str = "mean",
    scope: str = "image",
    min_pixels: float = 1,
    resize: str = "nearest",
    reduction: str = "mean",
    distance: str = "euclidean",
    memory: PrototypeEMA | None = None,
) -> Tensor:
    r"""Mean squared difference between the teacher's and the student's distances between classes.

    .. math:: \frac{1}{|E|} \sum_{(i<j) \in E} \big(d^s_{ij} - d^t_{ij}\big)^2, \quad
              d_{ij} = \lVert \mu_i - \mu_j \rVert_2

    where :math:`\mu_k` is the mean feature of class k and E holds the pairs whose classes are both present; with
    several graphs, the mean over those that have a pair. After the idea of Zhang, Zhou and Tu, "Distilling inter-class
    distance for semantic segmentation", IJCAI 2022; node, edge and normalisation are this project's definitions
    (docs/method.md).

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'); widths and grids may differ; takes no gradient.
        labels: (N, H, W) int64 in 0..num_classes-1, or `ignore_index`.
        normalize: `mean` divides each side's edges by their own mean over E, so that relative distances count (a
            graph of two classes then teaches nothing); `none` takes them raw.
        scope: `image`, `batch` or `world`; see `class_means`.
        min_pixels: a class is present from this number of feature cells on, on both grids.
        resize: `nearest` or `area`; see `class_means`.
        reduction: over a graph's pairs, `mean` or `sum`.
        distance: `euclidean`, `squared` or `cosine`; see `distance_matrix`.
        memory: stands in for absent classes; it moves on when it is in training mode.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where no graph has two classes.

    Raises:
        ValueError: for an unknown option or `min_pixels` <= 0.
    """
    _check_options(normalize, scope, min_pixels, resize, reduction, distance)
    maps = [student, teacher.detach()]
    (ours, theirs), classes = common_prototypes(
        maps, labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize
    )
    present = _enough(ours.pixels, min_pixels) & _enough(theirs.pixels, min_pixels)
    nodes_s, nodes_t, pairs = ours.means, theirs.means, both(present)
    if memory is not None:
        nodes_s, nodes_t, pairs = memory.complete(ours.means, theirs.means, present, classes)
    loss = graph_distance(nodes_s, nodes_t, pairs, normalize=normalize, reduction=reduction, distance=distance)
    if memory is not None and memory.training:
        memory.remember(ours.means, theirs.means, present, classes)
    return loss


class InterClassDistance(Term):
    """`inter_class_distance` of the feature maps named `taps`, their mean; by option with a `PrototypeEMA` each.

    Args:
        memory: momentum of the moving averages in [0, 1); None does without.
        taps: `stage1` to `stage4` of the backbone, `head`, `logits`; at least one.

    Raises:
        ValueError: for an option out of range, or a tap that is unknown or named twice.
    """

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        ignore_index: int = 255,
        normalize: Normalize = "mean",
        scope: Scope = "image",
        min_pixels: float = 1,
        resize: Resize = "nearest",
        reduction: Reduction = "mean",
        distance: Distance = "euclidean",
        memory: float | None = None,
        taps: Sequence[str] = ("head",),
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        _check_options(normalize, scope, min_pixels, resize, reduction, distance)
        if memory is not None and not 0 <= memory < 1:
            raise ValueError(f"memory must be in [0, 1) or null, got {memory}")
        if isinstance(taps, str) or not taps or len(set(taps)) < len(taps):
            raise ValueError(f"taps must be a list of different feature maps, such as [stage4,head], got {taps}")
        self.num_classes, self.ignore_index, self.min_pixels = num_classes, ignore_index, min_pixels
        self.normalize, self.scope, self.resize, self.reduction = normalize, scope, resize, reduction
        self.distance, self.momentum, self.taps = distance, memory, tuple(taps)
        self.memories = nn.ModuleDict()

    @property
    def teacher_maps(self) -> Sequence[str]:
        return [tap for tap in self.taps if tap != LOGITS]

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        ours, theirs = ({**channels, LOGITS: self.num_classes} for channels in (student_channels, teacher_channels))
        for tap in self.taps:
            for channels in (ours, theirs):
                require_tap(channels, tap)
            if self.momentum is not None:
                self.memories[tap] = PrototypeEMA(self.num_classes, ours[tap], theirs[tap], self.momentum)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return self._mean_over_taps(student, teacher_of(teacher, self), batch.label, self.scope, remembered=True)

    def _mean_over_taps(
        self, student: Outputs, teacher: Outputs, labels: Tensor, scope: str, *, remembered: bool
    ) -> Tensor:
        losses = []
        for tap in self.taps:
            memory = self.memories[tap] if remembered and tap in self.memories else None
            assert memory is None or isinstance(memory, PrototypeEMA)
            losses.append(
                inter_class_distance(
                    map_of(student, tap),
                    map_of(teacher, tap),
                    labels,
                    self.num_classes,
                    ignore_index=self.ignore_index,
                    normalize=self.normalize,
                    scope=scope,
                    min_pixels=self.min_pixels,
                    resize=self.resize,
                    reduction=self.reduction,
                    distance=self.distance,
                    memory=memory,
                )
            )
        return torch.stack(losses).mean()

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the loss on held-out images, without memory.

        A graph stays in its process: the ranks may have different numbers of held-out batches, and would wait.
        """
        scope = "batch" if self.scope == "world" else self.scope
        found = self._mean_over_taps(student, teacher_of(teacher, self), batch.label, scope, remembered=False)
        return {"distance": found}
