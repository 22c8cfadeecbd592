"""A page of random samples of a data set with their labels laid over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from idd_seg.data.pipeline.pixels import viewable
from idd_seg.errors import DataError
from idd_seg.plotting.contact_sheet import Classes, Shown, draw

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule


def contact_sheet(data: SegmentationDataModule, split: str, count: int, seed: int) -> Any:
    """Draw `count` random samples of a split: the photograph above, with its label below; None if none can be read."""
    dataset = data.dataset(split)
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
    samples = []
    for index in sorted(chosen.tolist()):
        try:
            image, label, name = dataset.source[index]
            classes = None if label is None else dataset.labels(label, name)
        except DataError:
            continue  # the scan has named it
        samples.append(Shown(viewable(image), classes, name.rsplit("/", 1)[-1]))
    return draw(samples, classes_of(data)) if samples else None


def classes_of(data: SegmentationDataModule) -> Classes:
    """Return the classes of a data set, as they are drawn."""
    return Classes(data.class_names, data.palette, data.ignore_index)
