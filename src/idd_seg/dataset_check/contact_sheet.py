"""A page of random samples of a data set with their labels laid over them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError
from idd_seg.plotting.figures import colourise, figure, legend, show_image

SIDE = 384  # pixels of a sample's longer side


def overlay(image: UInt8, label: UInt8, data: SegmentationDataModule, opacity: float = 0.55) -> UInt8:
    """Lay the colours of the classes (H, W) over a photograph (H, W, 3); what is ignored stays as it is."""
    colours = colourise(label, data.palette)
    mixed = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
    return np.where((label == data.ignore_index)[..., None], image, mixed)


def contact_sheet(data: SegmentationDataModule, split: str, count: int, seed: int) -> Any:
    """Draw `count` random samples of a split: the photograph above, with its label below; None if none can be read.

    Photographs without labels are drawn once.
    """
    dataset = data.dataset(split)
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
    samples = []
    for index in sorted(chosen.tolist()):
        try:
            image, label, name = dataset.source[index]
            samples.append((image, None if label is None else dataset.labels(label, name), name))
        except DataError:
            continue  # the scan has named it
    if not samples:
        return None
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    height, width = samples[0][0].shape[:2]
    each = 1 if all(label is None for _, label, _ in samples) else 2  # pictures of a sample
    inches = 2.5 * each * rows * height / width + 0.35 * rows + 0.9  # with a title, and the legend below
    fig = figure(2.5 * columns, inches)
    axes = fig.subplots(each * rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (image, label, name) in enumerate(samples):
        row, column = divmod(i, columns)
        unknown = np.full(image.shape[:2], data.ignore_index, np.uint8)
        small, classes = _small(image, unknown if label is None else label)
        title = name.rsplit("/", 1)[-1]
        title = title if len(title) <= 36 else f"…{title[-35:]}"
        drawn = [(small, title), (overlay(small, classes, data), "")][:each]
        for axis, (picture, words) in zip(axes[each * row :, column], drawn, strict=False):
            show_image(axis, picture, words)
            axis.axis("on")
    if each == 2:
        legend(fig, data.class_names, data.palette)
    bottom = 0.06 + 0.1 / inches  # the legend hangs at 0.06
    fig.subplots_adjust(left=0.01, right=0.99, bottom=bottom, top=1 - 0.25 / inches, wspace=0.03, hspace=0.09)
    return fig


def _small(image: UInt8, label: UInt8) -> tuple[UInt8, UInt8]:
    scale = min(1.0, SIDE / max(label.shape))
    size = (max(1, round(label.shape[1] * scale)), max(1, round(label.shape[0] * scale)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT),
    )
