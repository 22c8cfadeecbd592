"""Distances of every pixel to the means of all classes, in both networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, inverse_length
from idd_seg.losses.ops.class_distances import ZERO, both, distance_matrix, mean_edge
from idd_seg.losses.ops.class_products import class_products, inverse_roots
from idd_seg.losses.ops.class_relations import Mean, relation_divergence
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.ops.prototype_ema import PrototypeEMA
from idd_seg.losses.ops.prototypes import common_prototypes, enough

Lift = Callable[[Tensor], Tensor]


def pixel_class_distance(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    normalize: str = "mean",
    scope: str = "batch",
    min_pixels: float = 1,
    resize: str = "nearest",
    distance: str = "euclidean",
    temperature: float = 0.2,
    lift: Lift | None = None,
    memory: PrototypeEMA | None = None,
    mean: Mean = masked_mean,
) -> Tensor:
    r"""Mean over pixels of the divergence between both networks' distances of a pixel to the classes.

    .. math:: \frac{1}{|V|} \sum_{p \in V} \mathrm{KL}\big(\mathrm{softmax}_k(-d^t_{pk} / (T \bar d^t)) \,\|\,
              \mathrm{softmax}_k(-d^s_{pk} / (T \bar d^s))\big), \quad d_{pk} = \lVert f_p - \mu_k \rVert_2

    where :math:`\mu_k` is the mean feature of class k, :math:`\bar d` the mean distance between two of these means, and
    k runs over the classes that are present. What `inter_class_distance` says by one number for two classes, this says
    at every pixel. A form of this project's own; that pixels are compared with classes is after Z. Tian et al.,
    "Adaptive perspective distillation for semantic segmentation", TPAMI 2022.

    Args:
        student: features (N, Cs, h, w).
        teacher: features (N, Ct, h', w'), brought to (h, w) bilinearly where the grids differ; the widths may differ;
            takes no gradient.
        labels: (N, H, W) int64; pixels that are of no class, read nearest, are not counted.
        normalize: `mean` divides by the mean distance of the class means; `none` takes distances raw.
        scope, min_pixels, resize: see `inter_class_distance`.
        distance: `euclidean`, `squared` or `cosine`.
        temperature: T > 0.
        lift: applied to the student's map first.
        memory: stands in for absent classes; it moves on when it is in training mode.
        mean: over the pixels of all processes, or `own_masked_mean`.

    Returns:
        A scalar in float32; exactly zero, with a gradient path, where no graph has two classes.
    """
    student, teacher = comparable(student if lift is None else lift(student), teacher)
    (ours, theirs), classes = common_prototypes(
        [student, teacher], labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize
    )
    there = present = enough(ours.pixels, min_pixels)
    means_s, means_t = ours.means, theirs.means
    if memory is not None:
        means_s, means_t, there, _ = memory.filled(means_s, means_t, present, classes)
    close_s, close_t = (
        _closeness(x, means, there, normalize, distance) / temperature
        for x, means in ((student, means_s), (teacher, means_t))
    )
    if memory is not None and memory.training:
        memory.remember(ours.means, theirs.means, present, classes)
    sampled = nearest_labels(labels, student.shape[-2:]).flatten(1)
    known = (sampled >= 0) & (sampled < num_classes) & (sampled != ignore_index)
    several = there.sum(1, keepdim=True) > 1
    return relation_divergence(close_s, close_t, there, known & several, mean)


def _closeness(features: Tensor, means: Tensor, there: Tensor, normalize: str, distance: str) -> Tensor:
    """Distances (N, k, P), negative, of each cell to the means (G, k, C)."""
    apart = _distances(features, means, distance)
    if normalize == "mean":
        apart = apart / mean_edge(distance_matrix(means, distance), both(there))
    return -apart


def _distances(features: Tensor, means: Tensor, distance: str) -> Tensor:
    if distance == "cosine":
        products, squared = class_products(features, means * inverse_length(means, dim=2))
        return 1 - products * inverse_roots(squared)[:, None]
    products, squared = class_products(features, means)
    lengths = squared[:, None] + means.square().sum(2)[..., None]
    wider = torch.add(lengths, products, alpha=-2)
    # Rounding may leave less than nothing of a cell that is its class's mean.
    apart = ~(wider.detach() <= _rounding(wider) * lengths.detach())
    kept = torch.where(apart, wider, 1)
    return torch.where(apart, kept.sqrt() if distance == "euclidean" else kept, 0)


def _rounding(x: Tensor) -> float:
    return ZERO if x.dtype == torch.float64 else 1e-6
