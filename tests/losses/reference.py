"""Literal float64 versions of the losses, one Python loop for each sum in the definition."""

from __future__ import annotations

import math

from torch import Tensor

Shares = dict[int, float]


def class_shares(label: list[list[int]], h: int, w: int, num_classes: int, ignore: int, resize: str) -> list[Shares]:
    """For every cell of an (h, w) grid, row by row: how much of it belongs to each class."""
    height, width = len(label), len(label[0])
    cells: list[Shares] = []
    for i in range(h):
        for j in range(w):
            if resize == "nearest":
                pixels = [label[i * height // h][j * width // w]]
            else:
                rows = [y for y in range(height) if y * h // height == i]
                columns = [x for x in range(width) if x * w // width == j]
                pixels = [label[y][x] for y in rows for x in columns]
            shares: Shares = {}
            for k in pixels:
                if 0 <= k < num_classes and k != ignore:
                    shares[k] = shares.get(k, 0.0) + 1 / len(pixels)
            cells.append(shares)
    return cells


def class_means(
    features: Tensor, labels: Tensor, num_classes: int, ignore: int = 255, scope: str = "image", resize: str = "nearest"
) -> tuple[list[dict[int, list[float]]], list[dict[int, float]]]:
    """A graph's means and pixels by class; a class that is absent has no entry."""
    n, c, h, w = features.shape
    values = features.detach().double().tolist()
    graphs = [[image] for image in range(n)] if scope == "image" else [list(range(n))]
    means, pixels = [], []
    for images in graphs:
        sums: dict[int, list[float]] = {}
        counts: dict[int, float] = {}
        for image in images:
            cells = class_shares(labels[image].tolist(), h, w, num_classes, ignore, resize)
            for cell, shares in enumerate(cells):
                for k, share in shares.items():
                    counts[k] = counts.get(k, 0.0) + share
                    total = sums.setdefault(k, [0.0] * c)
                    for channel in range(c):
                        total[channel] += share * values[image][channel][cell // w][cell % w]
        means.append({k: [value / counts[k] for value in total] for k, total in sums.items()})
        pixels.append(counts)
    return means, pixels


def inter_class_distance(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    ignore: int = 255,
    normalize: str = "mean",
    scope: str = "image",
    min_pixels: float = 1,
    resize: str = "nearest",
    reduction: str = "mean",
) -> float:
    student_means, student_pixels = class_means(student, labels, num_classes, ignore, scope, resize)
    teacher_means, teacher_pixels = class_means(teacher, labels, num_classes, ignore, scope, resize)
    losses = []
    for graph in range(len(student_means)):
        present = [
            k
            for k in range(num_classes)
            if student_pixels[graph].get(k, 0) >= min_pixels and teacher_pixels[graph].get(k, 0) >= min_pixels
        ]
        pairs = [(i, j) for i in present for j in present if i < j]
        if pairs:
            losses.append(graph_loss(student_means[graph], teacher_means[graph], pairs, normalize, reduction))
    return sum(losses) / len(losses) if losses else 0.0


def graph_loss(
    student: dict[int, list[float]],
    teacher: dict[int, list[float]],
    pairs: list[tuple[int, int]],
    normalize: str,
    reduction: str,
) -> float:
    student_edges = [math.dist(student[i], student[j]) for i, j in pairs]
    teacher_edges = [math.dist(teacher[i], teacher[j]) for i, j in pairs]
    if normalize == "mean":
        student_mean, teacher_mean = sum(student_edges) / len(pairs), sum(teacher_edges) / len(pairs)
        student_edges = [edge / student_mean for edge in student_edges]
        teacher_edges = [edge / teacher_mean for edge in teacher_edges]
    total = sum((s - t) ** 2 for s, t in zip(student_edges, teacher_edges, strict=True))
    return total / len(pairs) if reduction == "mean" else total


def log_softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    norm = top + math.log(sum(math.exp(value - top) for value in logits))
    return [value - norm for value in logits]


def pixel_wise(
    student: Tensor, teacher: Tensor, labels: Tensor | None = None, temperature: float = 1.0, ignore: int = 255
) -> float:
    n, k, h, w = student.shape
    s, t = student.detach().double(), teacher.detach().double()
    divergences = []
    for image in range(n):
        for i in range(h):
            for j in range(w):
                if labels is not None:
                    _, height, width = labels.shape
                    if labels[image, i * height // h, j * width // w].item() == ignore:
                        continue
                log_s = log_softmax((s[image, :, i, j] / temperature).tolist())
                log_t = log_softmax((t[image, :, i, j] / temperature).tolist())
                divergences.append(sum(math.exp(log_t[c]) * (log_t[c] - log_s[c]) for c in range(k)))
    return temperature**2 * sum(divergences) / len(divergences) if divergences else 0.0


def neighbours(i: int, size: int, target: int) -> list[tuple[int, float]]:
    """The cells that position i of a line of `target` reads from a line of `size`, with their weights."""
    source = max((i + 0.5) * size / target - 0.5, 0.0)
    low = int(source)
    high = min(low + 1, size - 1)
    return [(low, 1 - (source - low)), (high, source - low)]


def cross_entropy(logits: Tensor, labels: Tensor, ignore: int = 255) -> float:
    n, k, h, w = logits.shape
    _, height, width = labels.shape
    values = logits.detach().double()
    losses = []
    for image in range(n):
        for y in range(height):
            for x in range(width):
                label = int(labels[image, y, x])
                if label == ignore:
                    continue
                pixel = [0.0] * k
                for i, row_weight in neighbours(y, h, height):
                    for j, column_weight in neighbours(x, w, width):
                        for c in range(k):
                            pixel[c] += row_weight * column_weight * values[image, c, i, j].item()
                losses.append(-log_softmax(pixel)[label])
    return sum(losses) / len(losses) if losses else 0.0
