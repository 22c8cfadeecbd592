"""Inter-class distance distillation: the student learns how far apart the teacher keeps the classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from idd_seg.losses.class_memory import ClassMemory, both
from idd_seg.losses.grid import no_autocast
from idd_seg.losses.nodes import RESIZES, SCOPES, Nodes, check_choice, class_means, compact_class_means
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term, require_tap, teacher_of
from idd_seg.types import Batch, Outputs

__all__ = ["InterClassDistance", "class_means", "distance_matrix", "inter_class_distance"]

NORMALIZES = ("mean", "none")
REDUCTIONS = ("mean", "sum")


def distance_matrix(means: Tensor) -> Tensor:
    """Euclidean distances (G, k, k) between the k nodes (G, k, C) of each graph; zero gradient at zero distance."""
    # By differences, not by a matrix product: near classes are the point, and cancellation would spoil just those.
    return torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")


def _upper(pairs: Tensor) -> Tensor:
    return torch.triu(pairs, diagonal=1)


def _relative(edges: Tensor, pairs: Tensor, count: Tensor) -> Tensor:
    """Divide each graph's edges by their own mean over `pairs`; edges that are all zero stay zero."""
    mean = (edges * pairs).sum((1, 2)) / count.clamp(min=1)
    return edges / torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None]


def graph_distance(
    student: Tensor, teacher: Tensor, pairs: Tensor, *, normalize: str = "mean", reduction: str = "mean"
) -> Tensor:
    """Compare two sets of class graphs edge by edge.

    Args:
        student, teacher: nodes (G, k, Cs) and (G, k, Ct).
        pairs: (G, k, k) bool, True where an edge takes part; only the part above the diagonal is read.

    Returns:
        A scalar: the squared difference of the edges, averaged (or, with reduction `sum`, summed) over each graph's
        pairs and then averaged over the graphs that have a pair. Exactly zero, with a gradient path, where none has.
    """
    weights = _upper(pairs).to(student.dtype)
    count = weights.sum((1, 2))
    with no_autocast(student):
        edges_s, edges_t = distance_matrix(student), distance_matrix(teacher)
    if normalize == "mean":
        edges_s, edges_t = _relative(edges_s, weights, count), _relative(edges_t, weights, count)
    loss = ((edges_s - edges_t).square() * weights).sum((1, 2))
    if reduction == "mean":
        loss = loss / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)


def _enough(pixels: Tensor, min_pixels: float) -> Tensor:
    """Tell where a class is present; shares of cells that add up to `min_pixels` but for rounding are enough."""
    return pixels >= min_pixels * (1 - 1e-5)


def _check_options(normalize: str, scope: str, min_pixels: float, resize: str, reduction: str) -> None:
    check_choice("normalize", normalize, NORMALIZES)
    check_choice("scope", scope, SCOPES)
    check_choice("resize", resize, RESIZES)
    check_choice("reduction", reduction, REDUCTIONS)
    if not min_pixels > 0:
        raise ValueError(f"min_pixels must be > 0, got {min_pixels}")


def _node_pair(
    student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, ignore_index: int, scope: str, resize: str
) -> tuple[Nodes, Nodes]:
    """Nodes of both networks with the same columns: on different grids a thin class may occur on one alone."""

    def of(features: Tensor) -> Nodes:
        return compact_class_means(features, labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize)

    ours, theirs = of(student), of(teacher.detach())
    if len(ours.classes) == len(theirs.classes) and bool((ours.classes == theirs.classes).all()):
        return ours, theirs
    common = ours.classes[torch.isin(ours.classes, theirs.classes)]
    return _select(ours, common), _select(theirs, common)


def _select(nodes: Nodes, classes: Tensor) -> Nodes:
    kept = torch.isin(nodes.classes, classes)
    return Nodes(nodes.means[:, kept], nodes.pixels[:, kept], classes)


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

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where no graph has two classes.

    Raises:
        ValueError: for an unknown option or `min_pixels` <= 0.
    """
    _check_options(normalize, scope, min_pixels, resize, reduction)
    ours, theirs = _node_pair(student, teacher, labels, num_classes, ignore_index, scope, resize)
    present = _enough(ours.pixels, min_pixels) & _enough(theirs.pixels, min_pixels)
    return graph_distance(ours.means, theirs.means, both(present), normalize=normalize, reduction=reduction)


class InterClassDistance(Term):
    """`inter_class_distance` of the feature maps named `tap`, by option with a `ClassMemory`.

    Args:
        memory: momentum of the moving averages in [0, 1); None does without.

    Raises:
        ValueError: for an option out of range, or a tap that a network does not give.
    """

    def __init__(
        self,
        num_classes: int,
        weight: float = 1.0,
        ignore_index: int = 255,
        normalize: str = "mean",
        scope: str = "image",
        min_pixels: float = 1,
        resize: str = "nearest",
        reduction: str = "mean",
        memory: float | None = None,
        tap: str = "head",
        schedule: WeightSchedule | None = None,
    ) -> None:
        super().__init__(weight, schedule)
        _check_options(normalize, scope, min_pixels, resize, reduction)
        if memory is not None and not 0 <= memory < 1:
            raise ValueError(f"memory must be in [0, 1) or null, got {memory}")
        self.num_classes, self.ignore_index, self.min_pixels = num_classes, ignore_index, min_pixels
        self.normalize, self.scope, self.resize, self.reduction = normalize, scope, resize, reduction
        self.momentum, self.tap = memory, tap
        self.memory: ClassMemory | None = None

    def bind(self, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> None:
        for channels in (student_channels, teacher_channels):
            require_tap(channels, self.tap)
        if self.momentum is not None:
            widths = student_channels[self.tap], teacher_channels[self.tap]
            self.memory = ClassMemory(self.num_classes, *widths, self.momentum)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        ours, theirs = student.features[self.tap], teacher_of(teacher, self).features[self.tap]
        if self.memory is not None:
            return self._with_memory(self.memory, ours, theirs, batch.label)
        return self._without_memory(ours, theirs, batch.label, self.scope)

    def _without_memory(self, ours: Tensor, theirs: Tensor, labels: Tensor, scope: str) -> Tensor:
        return inter_class_distance(
            ours,
            theirs,
            labels,
            self.num_classes,
            ignore_index=self.ignore_index,
            normalize=self.normalize,
            scope=scope,
            min_pixels=self.min_pixels,
            resize=self.resize,
            reduction=self.reduction,
        )

    def _with_memory(self, memory: ClassMemory, ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
        def nodes(features: Tensor) -> tuple[Tensor, Tensor]:
            return class_means(
                features,
                labels,
                self.num_classes,
                ignore_index=self.ignore_index,
                scope=self.scope,
                resize=self.resize,
            )

        (means_s, pixels_s), (means_t, pixels_t) = nodes(ours), nodes(theirs.detach())
        present = _enough(pixels_s, self.min_pixels) & _enough(pixels_t, self.min_pixels)
        full_s, full_t, pairs = memory.complete(means_s, means_t, present)
        loss = graph_distance(full_s, full_t, pairs, normalize=self.normalize, reduction=self.reduction)
        if self.training:
            memory.remember(means_s, means_t, present)
        return loss

    def measure(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the loss on held-out images, without memory.

        A graph stays in its process: the ranks may have different numbers of held-out batches, and would wait.
        """
        ours, theirs = student.features[self.tap], teacher_of(teacher, self).features[self.tap]
        scope = "batch" if self.scope == "world" else self.scope
        return {"distance": self._without_memory(ours, theirs, batch.label, scope)}
