"""Reading every file of a data set once, on all cores, and saying all that is wrong with it."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from idd_seg.data.pipeline.dataset import SegmentationDataset
from idd_seg.data.pipeline.label_check import LabelCounts, findings
from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.dataset_check.channel_sums import ChannelSums
from idd_seg.errors import DataError, printable

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

CHUNK = 32  # items that a process takes at a time


@dataclass
class SplitReport:
    """What was found in a split.

    Attributes:
        pixels: of each class, and of what takes no part in the last place.
        images: number of photographs in which each class occurs.
        sizes: (height, width) -> number of photographs.
        problems: what is wrong, a line each.
        warnings: what should be known, a line each.
        counts: pixels by value; None where nothing was read.
        channels: sums of the pictures' values; None of photographs.
    """

    length: int
    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: LabelCounts | None = None
    channels: ChannelSums | None = None

    def add(self, other: SplitReport) -> None:
        """Add what was found in another part of the split."""
        self.pixels += other.pixels
        self.images += other.images
        self.sizes.update(other.sizes)
        self.problems += other.problems
        if other.channels is not None:
            self.channels = other.channels if self.channels is None else self.channels + other.channels
        if self.counts is None or other.counts is None:
            self.counts = self.counts or other.counts
        else:
            self.counts.classes += other.counts.classes
            self.counts.values += other.counts.values
            self.counts.images += other.counts.images

    def as_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = [*class_names, "(ignored)"]
        return {
            "items": self.length,
            "sizes": {f"{width} x {height}": n for (height, width), n in self.sizes.most_common()},
            "pixels": dict(zip(names, self.pixels.tolist(), strict=True)),
            "images": dict(zip(names, self.images.tolist(), strict=True)),
            **({} if self.channels is None else {"mean": self.channels.mean, "std": self.channels.std}),
            "problems": self.problems,
            "warnings": self.warnings,
        }


def scan(data: SegmentationDataModule, split: str, workers: int = 0) -> SplitReport:
    """Read every item of a split: a bad file is a line of the report, and the scan goes on.

    Args:
        workers: processes; 0 takes one for each core.
    """
    try:
        dataset = data.dataset(split)
    except DataError as error:
        return SplitReport(0, *_zeros(data), problems=[printable(str(error))])
    report = SplitReport(len(dataset), *_zeros(data))
    report.counts = LabelCounts(report.pixels.copy())
    chunks = [range(i, min(len(dataset), i + CHUNK)) for i in range(0, len(dataset), CHUNK)]
    parts = _parts(dataset, data, chunks, workers or os.cpu_count() or 1)
    for part in track(parts, description=f"scan {data.name} {split}", total=len(chunks)):
        report.add(part)
    if report.counts is not None:
        # What could not be read is a problem of its own.
        for found in findings(data, split, report.counts, report.counts.images):
            (report.problems if found.fatal else report.warnings).insert(0, found.text)
    expected = data.counts.get(split) if split != "train" or data.labelled_share == 1 else None
    if expected is not None and len(dataset) != expected:
        report.problems.append(f"{len(dataset)} items; the complete split has {expected} (data.counts.{split})")
    return report


def _zeros(data: SegmentationDataModule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(data.num_classes + 1, np.int64), np.zeros(data.num_classes + 1, np.int64)


def _parts(
    dataset: SegmentationDataset, data: SegmentationDataModule, chunks: Sequence[range], workers: int
) -> Iterator[SplitReport]:
    job = (dataset, data.num_classes, data.ignore_index, data.pixels)
    if min(workers, len(chunks)) <= 1:
        yield from (_scan_chunk(*job, chunk) for chunk in chunks)
        return
    # A fresh process each: forks of one that runs threads may hang.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _set_job, job) as pool:
        yield from pool.map(_scan_own, chunks)


_job: tuple[SegmentationDataset, int, int, Pixels]


def _set_job(*job: Any) -> None:
    global _job
    _job = job
    cv2.setNumThreads(0)


def _scan_own(chunk: range) -> SplitReport:
    return _scan_chunk(*_job, chunk)


def _scan_chunk(
    dataset: SegmentationDataset, num_classes: int, ignore_index: int, pixels: Pixels, chunk: range
) -> SplitReport:
    report = SplitReport(len(chunk), np.zeros(num_classes + 1, np.int64), np.zeros(num_classes + 1, np.int64))
    report.counts = LabelCounts(report.pixels)
    for index in chunk:
        try:
            image, label, name = dataset.source[index]
            if label is not None:
                counts = report.counts.add(label, dataset.labels(label, name), ignore_index)
                report.images += counts > 0
                if not counts[:-1].any():
                    report.problems.append(printable(f"{name}: every pixel of its label is ignored"))
        except DataError as error:
            report.problems.append(printable(str(error)))
            continue
        report.sizes[image.shape[:2]] += 1
        if not pixels.photograph:
            sums = ChannelSums.of(image, pixels)
            report.channels = sums if report.channels is None else report.channels + sums
    return report
