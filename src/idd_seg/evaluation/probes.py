"""What a network's features tell: how far apart the classes lie, and where in the photograph a feature is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idd_seg.losses.idd import class_means, distance_matrix
from idd_seg.losses.ops.grid import resize_like
from idd_seg.losses.ops.position_probe import PositionProbe, fit_step, frozen_probe
from idd_seg.metrics.rank_correlation import spearman
from idd_seg.models.segmenter import Segmenter
from idd_seg.types import Batch

TARGETS = ("horizontal", "vertical")


@torch.no_grad()
def class_distances(network: Segmenter, batches: Iterable[Batch], num_classes: int, ignore_index: int) -> Tensor:
    """Distances between the classes over a whole split, relative to their mean.

    Returns:
        (K, K) float32; NaN in rows and columns of classes that do not occur.
    """
    sums, pixels = torch.zeros(()), torch.zeros(())
    for batch in batches:
        head = network(batch.image).features["head"]
        means, count = class_means(
            head, batch.label, num_classes, ignore_index=ignore_index, scope="batch", resize="area"
        )
        sums, pixels = sums + (means[0] * count[0][:, None]).cpu(), pixels + count[0].cpu()
    nodes = sums / pixels.clamp(min=1e-6)[:, None]
    distances = distance_matrix(nodes[None])[0]
    present = pixels > 0
    both = present[:, None] & present[None, :]
    off_diagonal = both & ~torch.eye(num_classes, dtype=torch.bool)
    distances = distances / distances[off_diagonal].mean()
    return torch.where(both, distances, torch.nan)


def matrix_error(student: Tensor, teacher: Tensor) -> float:
    """Relative error of a class-distance matrix: Frobenius norm of the difference over that of the teacher's."""
    known = ~(student.isnan() | teacher.isnan())
    return float((student - teacher)[known].norm() / teacher[known].norm())


def near_pairs(distances: Tensor, share: float = 0.25) -> list[tuple[int, int]]:
    """Return the nearest of the pairs of classes (i < j), nearest first: `share` of all that occur, at least one.

    Args:
        distances: (K, K); NaN where a class does not occur.
    """
    rows, columns = torch.triu_indices(len(distances), len(distances), offset=1)
    values = distances[rows, columns]
    order = [i for i in values.argsort().tolist() if not values[i].isnan()]
    kept = order[: max(1, round(share * len(order)))]
    return [(int(rows[i]), int(columns[i])) for i in kept]


def near_confusion(confusion: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """Return how often classes of the pairs are taken for each other: a share of their pixels, mean over the pairs.

    Args:
        confusion: (K, K) counts, rows truth, columns prediction.
    """
    counts = confusion.double()
    shares = [
        (counts[i, j] + counts[j, i]) / pixels for i, j in pairs if (pixels := counts[i].sum() + counts[j].sum()) > 0
    ]
    return float(torch.stack(shares).mean()) if shares else float("nan")


@dataclass(frozen=True)
class Readability:
    """How well position can be read from a network's features on held-out images.

    Attributes:
        mse: mean squared error of the reading, in squared fractions of the photograph.
        spearman: rank correlation of reading and truth, mean over images and targets.
        maps: mean reading (T, h, w) over the images, of TARGETS, on the first one's grid.
        truth: what it should be.
    """

    mse: float
    spearman: float
    maps: Tensor
    truth: Tensor


def _readable(features: Tensor, reader: PositionProbe) -> Tensor:
    """Return a map, enlarged where a small picture gives fewer cells than the reader takes."""
    return resize_like(features, reader.least(features.shape[-2:], cells=2))


def position_readability(
    network: Segmenter, train: Callable[[], Iterable[Batch]], held_out: Iterable[Batch], steps: int, lr: float = 1e-2
) -> Readability:
    """Fit a position reader of its own on a frozen network and read held-out images with it.

    Each network gets a fresh reader, trained alike, as in Islam, Jia and Bruce, ICLR 2020: the measure is what can be
    read, not what the distillation's own reader reads. The reader's initial weights are drawn from the global
    generator.
    """
    channels = network.channels["head"]
    reader, optimizer = frozen_probe(channels, TARGETS, depth=1, padding=0, lr=lr)
    done = 0
    while done < steps:
        for batch in train():
            with torch.no_grad():
                head = _readable(network(batch.image).features["head"], reader)
            reader.to(head.device)
            maps, valid = reader.truth(batch.box, (head.shape[-2], head.shape[-1]))
            fit_step(reader, optimizer, head, maps, valid)
            done += 1
            if done >= steps:
                break
    errors: list[Tensor] = []
    correlations: list[Tensor] = []
    readings: list[Tensor] = []
    truths: list[Tensor] = []
    with torch.no_grad():
        for batch in held_out:
            head = _readable(network(batch.image).features["head"], reader)
            reading = reader(head).cpu()
            truth = reader.truth(batch.box, (head.shape[-2], head.shape[-1]))[0].cpu()
            errors.append((reading - truth).square().mean((1, 2, 3)))
            correlations.append(spearman(reading.flatten(2), truth.flatten(2)).mean(1))
            readings.append(resize_like(reading, readings[0].shape[-2:] if readings else reading.shape[-2:]))
            truths.append(resize_like(truth, readings[0].shape[-2:]))
    return Readability(
        mse=float(torch.cat(errors).mean()),
        spearman=float(torch.cat(correlations).mean()),
        maps=torch.cat(readings).mean(0),
        truth=torch.cat(truths).mean(0),
    )
