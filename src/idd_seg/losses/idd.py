"""Inter-class distance distillation: the student learns how far apart the teacher keeps the classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.adapters import LOGITS, Adapter, map_of
from idd_seg.losses.ops.cells import Resize
from idd_seg.losses.ops.class_distances import (
    Distance,
    Normalize,
    Reduction,
    Side,
    both,
    distance_matrix,
    graph_distance,
)
from idd_seg.losses.ops.distance_options import SIGMA, TEMPERATURE, Level, check_distances
from idd_seg.losses.ops.grid import own_masked_mean
from idd_seg.losses.ops.pixel_distances import pixel_class_distance
from idd_seg.losses.ops.prototype_ema import PrototypeEMA
from idd_seg.losses.ops.prototypes import Scope, class_means, common_prototypes, enough
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.types import Batch, Outputs

__all__ = ["InterClassDistance", "class_means", "distance_matrix", "inter_class_distance", "pixel_class_distance"]


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
    sigma: float | None = None,
    side: str = "both",
    lift: Callable[[Tensor], Tensor] | None = None,
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
        distance: `euclidean`, `squared`, `cosine` or `gaussian`; see `graph_distance`.
        sigma: of `gaussian`, > 0; None is 1.
        side: `both`, or `near`: only pairs that lie closer in the student are pulled to the teacher's distance, after
            the one-sided relation of SSA-Seg (X. Ma et al., NeurIPS 2024); with `normalize=mean`, relatively closer.
        lift: a 1 x 1 convolution of the student's features, applied to their means, which is the same.
        memory: stands in for absent classes; it moves on when it is in training mode.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where no graph has two classes.

    Raises:
        ValueError: for an option that is unknown or out of range.
    """
    check_distances(
        normalize=normalize,
        scope=scope,
        min_pixels=min_pixels,
        resize=resize,
        reduction=reduction,
        distance=distance,
        sigma=sigma,
        side=side,
    )
    maps = [student, teacher.detach()]
    (ours, theirs), classes = common_prototypes(
        maps, labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize
    )
    present = enough(ours.pixels, min_pixels) & enough(theirs.pixels, min_pixels)
    means = ours.means if lift is None else lift(ours.means.mT[..., None])[..., 0].mT
    nodes_s, nodes_t, pairs = means, theirs.means, both(present)
    if memory is not None:
        nodes_s, nodes_t, pairs = memory.complete(means, theirs.means, present, classes)
    loss = graph_distance(
        nodes_s,
        nodes_t,
        pairs,
        normalize=normalize,
        reduction=reduction,
        distance=distance,
        sigma=SIGMA if sigma is None else sigma,
        side=side,
    )
    if memory is not None and memory.training:
        memory.remember(means, theirs.means, present, classes)
    return loss


class InterClassDistance(Term):
    """`inter_class_distance`, or `pixel_class_distance`, of the maps named `taps`: the mean over them.

    Args:
        memory: momentum of the moving averages in [0, 1), of each map; None does without.
        taps: `stage1` to `stage4` of the backbone, `head`, `logits`; at least one.
        lift: bring the student's features to the teacher's width by a 1 x 1 convolution before distances are taken. It
            is trained with the student and is no part of it.
        level: `classes`, the distances between classes; `pixels`, those of every pixel to all classes.
        sigma: of distance `gaussian`; None is 1.
        temperature: of level `pixels`; None is 0.2.

    Raises:
        ValueError: for an option out of range, options that make no sense together, or a tap that is unknown or named
            twice.
    """

    label_use = "classes"

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
        lift: bool = False,
        side: Side = "both",
        sigma: float | None = None,
        level: Level = "classes",
        temperature: float | None = None,
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        shared = {"normalize": normalize, "min_pixels": min_pixels, "resize": resize, "distance": distance}
        of_classes = {"reduction": reduction, "side": side, "sigma": sigma}
        check_distances(**shared, **of_classes, scope=scope, level=level, temperature=temperature)  # type: ignore[arg-type]
        if memory is not None and not 0 <= memory < 1:
            raise ValueError(f"memory must be in [0, 1) or null, got {memory}")
        if isinstance(taps, str) or not taps or len(set(taps)) < len(taps):
            raise ValueError(f"taps must be a list of different feature maps, such as [stage4,head], got {taps}")
        if lift and LOGITS in taps:
            raise ValueError(
                "lift is for features: the logits of both networks have the same width; leave them out of taps"
            )
        self.num_classes, self.ignore_index, self.scope = num_classes, ignore_index, scope
        self.momentum, self.taps, self.lift = memory, tuple(taps), lift
        self.loss: Callable[..., Tensor] = inter_class_distance
        self.options: dict[str, Any] = {**shared, **of_classes}
        if level == "pixels":
            self.loss = pixel_class_distance
            self.options = {**shared, "temperature": TEMPERATURE if temperature is None else temperature}
        self.memories, self.lifts = nn.ModuleDict(), nn.ModuleDict()

    @property
    def teacher_maps(self) -> Sequence[str]:
        return [tap for tap in self.taps if tap != LOGITS]

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        ours, theirs = ({**channels, LOGITS: self.num_classes} for channels in (student_channels, teacher_channels))
        for tap in self.taps:
            for channels in (ours, theirs):
                require_tap(channels, tap)
            if self.lift:
                self.lifts[tap] = Adapter(ours[tap], theirs[tap])
            if self.momentum is not None:
                width = theirs[tap] if self.lift else ours[tap]
                self.memories[tap] = PrototypeEMA(self.num_classes, width, theirs[tap], self.momentum)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return self._mean_over_taps(student, teacher_of(teacher, self), batch.label, self.scope, remembered=True)

    def _mean_over_taps(
        self, student: Outputs, teacher: Outputs, labels: Tensor, scope: str, *, remembered: bool, **more: Any
    ) -> Tensor:
        losses = [
            self.loss(
                map_of(student, tap),
                map_of(teacher, tap),
                labels,
                self.num_classes,
                ignore_index=self.ignore_index,
                scope=scope,
                lift=_held(self.lifts, tap),
                memory=_held(self.memories, tap) if remembered else None,
                **self.options,
                **more,
            )
            for tap in self.taps
        ]
        return torch.stack(losses).mean()

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the loss on held-out images, without memory.

        A graph stays in its process: the ranks may have different numbers of held-out batches, and would wait.
        """
        scope = "batch" if self.scope == "world" else self.scope
        more = {"mean": own_masked_mean} if self.loss is pixel_class_distance else {}
        found = self._mean_over_taps(student, teacher_of(teacher, self), batch.label, scope, remembered=False, **more)
        return {"distance": found}


def _held(modules: nn.ModuleDict, tap: str) -> nn.Module | None:
    return modules[tap] if tap in modules else None  # noqa: SIM401  (a ModuleDict has no `get`)
