"""Several runs beside each other: one table, one picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from idd_seg.data.pipeline.pixels import viewable
from idd_seg.data.pipeline.source import UInt8
from idd_seg.evaluation.per_image import PerImage
from idd_seg.evaluation.probes import (
    TARGETS,
    Readability,
    class_distances,
    matrix_error,
    near_confusion,
    near_pairs,
    position_readability,
)
from idd_seg.evaluation.scoring import batches, confusion_of, images_per_second
from idd_seg.metrics.confusion import Scores, scores
from idd_seg.models.segmenter import Segmenter, count_parameters
from idd_seg.ops.upsample import predict, whole_view
from idd_seg.plotting import matrices
from idd_seg.plotting.figures import classes_in, colourise, figure, legend, show_image
from idd_seg.plotting.tables import percent
from idd_seg.types import Batch

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


LITTLE_LEAD = 2.0  # points of mIoU of the teacher above the twin; see docs/choosing.md


@dataclass(frozen=True)
class Portrait:
    """All that is shown of one network.

    Attributes:
        confusion: (K, K) counts, rows truth, columns prediction.
        distances: (K, K) between the classes, relative to their mean.
    """

    scores: Scores
    confusion: torch.Tensor
    parameters: int
    images_per_s: float
    distances: torch.Tensor
    position: Readability


def portray(
    name: str,
    network: Segmenter,
    data: SegmentationDataModule,
    split: str,
    device: torch.device,
    probe_steps: int,
    seed: int,
    per_image: PerImage | None = None,
) -> Portrait:
    """Measure a network: scores, size, speed, class distances and how well position can be read from it.

    Args:
        per_image: is given the scores of each picture.
    """
    network.to(device).eval()
    confusion = confusion_of(network, data, split, device, f"{name}: scores", per_image=per_image).cpu()
    first = next(iter(_plain(data, split, device)))
    distances = class_distances(
        network, batches(data, split, device, f"{name}: class distances"), data.num_classes, data.ignore_index
    )
    # Same seed for all: the readers start from equal weights where the widths agree.
    torch.manual_seed(seed)
    position = position_readability(
        network,
        lambda: itertools.islice(_plain(data, "train", device, shuffle=True), probe_steps),
        batches(data, split, device, f"{name}: position"),
        probe_steps,
    )
    speed = images_per_second(network, first.image)
    return Portrait(scores(confusion), confusion, count_parameters(network), speed, distances, position)


def _plain(data: SegmentationDataModule, split: str, device: torch.device, shuffle: bool = False) -> Iterator[Batch]:
    # Whole photographs may differ in size, so they come in batches of the evaluation's size.
    size = min(data.eval_batch_size, len(data.dataset(split)))
    for batch in data.loader(split, shuffle=shuffle, batch_size=size):
        yield data.on_device(batch, device)


def as_dict(portraits: Mapping[str, Portrait], class_names: list[str]) -> dict[str, Any]:
    """Return plain values for JSON; class-distance errors are relative to the teacher, if there is one.

    `near_confusion` is of the quarter of the pairs of classes that are nearest to each other in the teacher.
    """
    teacher = portraits.get("teacher")
    pairs = [] if teacher is None else near_pairs(teacher.distances)
    rows = {}
    for name, p in portraits.items():
        error = None if teacher is None else matrix_error(p.distances, teacher.distances)
        confused = None if teacher is None else near_confusion(p.confusion, pairs)
        rows[name] = {
            **p.scores.as_dict(class_names),
            "parameters": p.parameters,
            "images_per_s": round(p.images_per_s, 2),
            "class_distance_error": error,
            "near_confusion": confused,
            "position_mse": p.position.mse,
            "position_spearman": p.position.spearman,
        }
    return rows


def rows_of(portraits: Mapping[str, Portrait], class_names: list[str]) -> list[tuple[str, list[str]]]:
    """Return the table: a row a quantity, a cell a network."""
    many = list(portraits.values())
    rows = [(f"IoU {name}, %", [percent(p.scores.iou[i]) for p in many]) for i, name in enumerate(class_names)]
    rows.append(("mIoU, %", [percent(p.scores.miou) for p in many]))
    rows.append(("pixel accuracy, %", [percent(p.scores.accuracy) for p in many]))
    rows.append(("parameters, million", [f"{p.parameters / 1e6:.3f}" for p in many]))
    rows.append(("images/s, forward", [f"{p.images_per_s:.1f}" for p in many]))
    if "teacher" in portraits:
        errors = [matrix_error(p.distances, portraits["teacher"].distances) for p in many]
        rows.append(("class-distance error", [f"{e:.3f}" for e in errors]))
        pairs = near_pairs(portraits["teacher"].distances)
        rows.append(("near classes confused, %", [percent(near_confusion(p.confusion, pairs)) for p in many]))
    rows.append(("position read, MSE", [f"{p.position.mse:.4f}" for p in many]))
    rows.append(("position read, Spearman", [f"{p.position.spearman:.3f}" for p in many]))
    return rows


def print_table(title: str, portraits: Mapping[str, Portrait], class_names: list[str]) -> None:
    """Print the comparison."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in portraits:
        table.add_column(name, justify="right")
    for name, cells in rows_of(portraits, class_names):
        table.add_row(escape(name), *cells, style="bold" if name.startswith("mIoU") else None)
    Console(width=max(80, 30 + 14 * len(portraits))).print(table)


def twin_of(portraits: Mapping[str, Portrait], alone: Sequence[str], student: str) -> str | None:
    """Return the first of the networks that were trained alone which is as large as the student; None if none is."""
    size = portraits[student].parameters
    return next((name for name in alone if name != student and portraits[name].parameters == size), None)


def lead_line(portraits: Mapping[str, Portrait], twin: str) -> str:
    """Say how far the teacher is above the twin, and what follows from a small lead (docs/choosing.md)."""
    lead = round(100 * (portraits["teacher"].scores.miou - portraits[twin].scores.miou), 1)
    said = f"teacher: {abs(lead):.1f} points of mIoU {'above' if lead >= 0 else 'below'} '{twin}'"
    if lead >= LITTLE_LEAD:
        return said
    advice = "take a better teacher, a smaller student, or none (docs/choosing.md)"
    return f"{said}; with less than {LITTLE_LEAD:g} distillation brought nothing where it was tried: {advice}"


def markdown(title: str, portraits: Mapping[str, Portrait], class_names: list[str]) -> str:
    """Return the comparison as a Markdown table."""
    lines = [title, "", f"| | {' | '.join(portraits)} |", "| --- |" + " ---: |" * len(portraits)]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows_of(portraits, class_names)]
    return "\n".join(lines) + "\n"


class Column(NamedTuple):
    """A sample: its image (H, W, 3), and class ids (H, W) of the truth and of each network."""

    image: UInt8
    labels: list[UInt8]


@torch.no_grad()
def sample_columns(
    networks: Mapping[str, Segmenter], data: SegmentationDataModule, split: str, device: torch.device, count: int
) -> list[Column]:
    """Return image, truth and every network's prediction for `count` samples spread over the split."""
    dataset = data.dataset(split)
    columns = []
    for index in torch.linspace(0, len(dataset) - 1, count).long().tolist():
        sample, batch = data.one(split, index, device)
        size = sample.label.shape
        found = [
            predict([whole_view(network(batch.image).logits, size)], size)[0].cpu() for network in networks.values()
        ]
        labels = [ids.to(torch.uint8).numpy() for ids in (sample.label, *found)]
        columns.append(Column(viewable(sample.image.permute(1, 2, 0).numpy()), labels))
    return columns


def draw(portraits: Mapping[str, Portrait], columns: list[Column], data: SegmentationDataModule) -> Any:
    """Draw samples, and beside each network its class-distance matrix and its mean position maps."""
    rows = ["image", "truth", *portraits]
    height, width = columns[0].labels[0].shape
    n = len(columns)
    cell = 1.9
    fig = figure(cell * (n + 3 * height / width) * width / height + 1.2, cell * len(rows) + 0.9)
    grid = fig.add_gridspec(
        len(rows), n + 3, width_ratios=[width / height] * n + [1, 1, 1], wspace=0.08, hspace=0.16, bottom=0.08, top=0.95
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            picture = colourise(column.labels[i - 1], data.palette) if i else column.image
            show_image(fig.add_subplot(grid[i, j]), picture, ylabel=row if j == 0 else "")
    first = next(iter(portraits.values()))
    for k, target in enumerate(TARGETS):
        _heat(fig.add_subplot(grid[1, n + 1 + k]), first.position.truth[k], 1.0, f"true {target}\nposition")
    top = max(float(p.distances.nan_to_num(0).max()) for p in portraits.values())
    for i, (name, p) in enumerate(portraits.items(), 2):
        title = "class distances"
        if "teacher" in portraits and name != "teacher":
            title = f"error {matrix_error(p.distances, portraits['teacher'].distances):.2f}"
        _heat(fig.add_subplot(grid[i, n]), p.distances, top, title)
        for k in range(len(TARGETS)):
            title = f"read, MSE {p.position.mse:.3f}" if k == 0 else f"Spearman {p.position.spearman:.2f}"
            _heat(fig.add_subplot(grid[i, n + 1 + k]), p.position.maps[k], 1.0, title)
    shown = classes_in((ids for column in columns for ids in column.labels), data.num_classes)
    legend(fig, data.class_names, data.palette, shown, columns=8)
    return fig


def draw_matrices(portraits: Mapping[str, Portrait], class_names: list[str]) -> Any:
    """Draw every network's class distances and confusion, with the names of the classes."""
    found = {name: matrices.Matrices(p.distances.numpy(), p.confusion.numpy()) for name, p in portraits.items()}
    return matrices.draw(found, class_names)


def _heat(axis: Any, values: torch.Tensor, top: float, title: str) -> None:
    axis.imshow(values.numpy(), vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=8)
