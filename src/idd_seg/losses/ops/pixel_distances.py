"""Distances of every pixel to the means of all classes, in both networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from idd_seg.losses.ops.adapters import comparable, inverse_length
from idd_seg.losses.ops.cells import cells_of, columns_for
from idd_seg.losses.ops.class_distances import ZERO, both, distance_matrix, mean_edge
from idd_seg.losses.ops.class_products import class_products, inverse_roots
from idd_seg.losses.ops.class_relations import Mean, relation_divergence
from idd_seg.losses.ops.grid import masked_mean, nearest_labels
from idd_seg.losses.ops.mean_products import mean_products, pixels_of
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
    size, wide = student.shape[-2:], {"normalize": normalize, "distance": distance, "temperature": temperature}
    if memory is None and resize == "nearest":
        columns = columns_for([nearest_labels(labels, size)], num_classes, ignore_index, world=scope == "world")
        cells = cells_of(labels, size, columns, ignore_index, resize, student.dtype)
        there = enough(pixels_of(cells, scope, student.dtype), min_pixels)
        close_s, close_t = (_closeness(*mean_products(x, cells, scope), there, **wide) for x in (student, teacher))
    else:
        (ours, theirs), classes = common_prototypes(
            [student, teacher], labels, num_classes, ignore_index=ignore_index, scope=scope, resize=resize
        )
        there = present = enough(ours.pixels, min_pixels)
        means_s, means_t = ours.means, theirs.means
        if memory is not None:
            means_s, means_t, there, _ = memory.filled(means_s, means_t, present, classes)
            if memory.training:
                memory.remember(ours.means, theirs.means, present, classes)
        close_s, close_t = (
            _closeness(means, *class_products(x, means), there, **wide)
            for x, means in ((student, means_s), (teacher, means_t))
        )
    sampled = nearest_labels(labels, student.shape[-2:]).flatten(1)
    known = (sampled >= 0) & (sampled < num_classes) & (sampled != ignore_index)
    several = there.sum(1, keepdim=True) > 1
    return relation_divergence(close_s, close_t, there, known & several, mean)


def _closeness(
    means: Tensor,
    products: Tensor,
    squared: Tensor,
    there: Tensor,
    *,
    normalize: str,
    distance: str,
    temperature: float,
) -> Tensor:
    """Return distances (N, k, P), negative and by temperature, of cells to the means (G, k, C) that are `there`.

    Args:
        products: (N, k, P) of cells and means; squared: (N, P), the cells' squared lengths.
    """
    if distance == "cosine":
        apart = 1 - products * inverse_length(means, dim=2) * inverse_roots(squared)[:, None]
    else:
        apart = _apart(products, squared[:, None], means.square().sum(2)[..., None], distance)
    unit = mean_edge(distance_matrix(means, distance), both(there)) if normalize == "mean" else 1
    return apart * (-1 / (unit * temperature))


def _apart(products: Tensor, of_cells: Tensor, of_means: Tensor, distance: str) -> Tensor:
    """Distances (N, k, P), or their squares, from products and squared lengths."""
    lengths = of_cells + of_means
    wider = torch.add(lengths, products, alpha=-2)
    # A cell that is its class's mean: what rounding leaves has no root, and no direction. What is no number stays so.
    nothing = wider.detach() <= _rounding(wider) * lengths.detach()
    if distance == "euclidean":
        wider = wider.masked_fill(nothing, 1).sqrt()
    return wider.masked_fill(nothing, 0)


def _rounding(x: Tensor) -> float:
    return ZERO if x.dtype == torch.float64 else 1e-6
