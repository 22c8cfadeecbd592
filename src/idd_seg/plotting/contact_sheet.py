"""A page of pictures with the colours of classes laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from idd_seg.data.pipeline.source import UInt8
from idd_seg.plotting.figures import classes_in, colourise, figure, legend, show_image

SIDE = 384  # pixels of a sample's longer side
MOST = 36  # letters of a title


class Shown(NamedTuple):
    """A picture (H, W, 3), its class ids (H, W) if there are some, and its title."""

    image: UInt8
    label: UInt8 | None
    title: str


class Classes(NamedTuple):
    """Names and colours of the classes, and the id of what is none."""

    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    ignore_index: int


def overlay(image: UInt8, label: UInt8, classes: Classes, opacity: float = 0.55) -> UInt8:
    """Lay the colours of the classes (H, W) over a photograph (H, W, 3); what is ignored stays as it is."""
    mixed = cv2.addWeighted(image, 1 - opacity, colourise(label, classes.palette), opacity, 0)
    return np.where((label == classes.ignore_index)[..., None], image, mixed)


def draw(samples: Sequence[Shown], classes: Classes) -> Any:
    """Draw samples in rows of four: the photograph above, with its label below; photographs alone once."""
    columns = min(4, len(samples))
    rows = -(-len(samples) // columns)
    height, width = samples[0].image.shape[:2]
    each = 1 if all(sample.label is None for sample in samples) else 2  # pictures of a sample
    inches = 2.5 * each * rows * height / width + 0.35 * rows + 0.9  # with a title, and the legend below
    fig = figure(2.5 * columns, inches)
    axes = fig.subplots(each * rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (image, label, title) in enumerate(samples):
        row, column = divmod(i, columns)
        unknown = np.full(image.shape[:2], classes.ignore_index, np.uint8)
        small, ids = _small(image, unknown if label is None else label)
        title = title if len(title) <= MOST else f"…{title[1 - MOST :]}"
        drawn = [(small, title), (overlay(small, ids, classes), "")][:each]
        for axis, (picture, words) in zip(axes[each * row :, column], drawn, strict=False):
            show_image(axis, picture, words)
            axis.axis("on")
    if each == 2:
        shown = classes_in((sample.label for sample in samples if sample.label is not None), len(classes.names))
        legend(fig, classes.names, classes.palette, shown)
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
