"""How often each class occurs in the training labels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.source import label_of, spread

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

MOST = 2000  # label maps that are read, spread over the split
READERS = 8  # files at once: most of the time is waiting for a disk


def class_counts(data: SegmentationDataModule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels (K,) of each class, and (K,) the labelled pixels of the pictures in which it occurs.

    Raises:
        DataError: for a label that can't be read.
    """
    source = data.dataset("train").source
    places = spread(len(source), MOST)
    data.say(f"the classes of {len(places)} of {len(source)} training labels are counted")

    def count(index: int) -> NDArray[np.int64]:
        label = label_of(source, index)
        if label is None:
            return np.zeros(data.num_classes, np.int64)
        ids = data.labels(label, source.name(index))
        return np.bincount(ids[ids != data.ignore_index].ravel(), minlength=data.num_classes)

    pixels, around = np.zeros((2, data.num_classes), np.int64)
    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(count, places):
            pixels += found
            around += np.where(found > 0, found.sum(), 0)
    return pixels, around
