"""From items to samples: augmentation seeded for each sample, labels mapped and checked, batches put together."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from idd_seg.data.augment import Augmentation, Window, cut, place, whole
from idd_seg.data.pipeline.labels import ToClasses
from idd_seg.data.pipeline.source import Item, Raster, Source, UInt8
from idd_seg.errors import DataError
from idd_seg.types import Batch

Key = tuple[int, int]  # (epoch, index): all that a sample depends on beside the seed


class Sample(NamedTuple):
    """One training or validation sample; `Batch` describes the fields."""

    image: Tensor
    label: Tensor
    box: Tensor
    name: str
    view: int | None = None
    colours: Tensor | None = None
    labelled: bool = True


class SegmentationDataset(Dataset[Sample]):
    """Samples of a source.

    Args:
        labels: from what the source's labels hold to class ids.
        augmentation: None shows whole photographs, and labels in their original size.
        image_scale: size of the images that the network sees, relative to the files.
        fill: values of the padding, one for each channel.
        frozen_epochs: number of epochs after which the augmentation is repeated; None draws anew in each.
        labelled: the first so many items must have labels to be augmented, those behind them are taken without; None
            for all.
    """

    def __init__(
        self,
        source: Source,
        labels: ToClasses,
        ignore_index: int,
        seed: int,
        *,
        image_scale: float = 1.0,
        augmentation: Augmentation | None = None,
        fill: Sequence[int] = (124, 116, 104),
        frozen_epochs: int | None = None,
        labelled: int | None = None,
    ) -> None:
        self.labelled = labelled
        self.source, self.labels, self.ignore_index, self.seed = source, labels, ignore_index, seed
        self.image_scale, self.augmentation, self.fill = image_scale, augmentation, fill
        self.frozen_epochs = 1 if augmentation is not None and not augmentation.random else frozen_epochs

    @property
    def views(self) -> int | None:
        """How many different pictures a training shows; None if there is no end to them."""
        return None if self.frozen_epochs is None else self.frozen_epochs * len(self)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        if self.frozen_epochs is not None:
            epoch %= self.frozen_epochs
        item = self.source[index]
        height, width = item.image.shape[:2]
        if self.augmentation is None:
            window = whole(height, width, self.image_scale)
            label = np.full((height, width), self.ignore_index, np.uint8)
            if item.label is not None:
                label = self.labels(item.label, item.name)
            picture = place(cut(item.image, window, cv2.INTER_LINEAR), window, self.fill)
            return _sample(picture, label, window.box(height, width), item.name)
        rng = np.random.default_rng([self.seed, epoch, index])
        view = None if self.frozen_epochs is None else epoch * len(self) + index
        if self.labelled is not None and index >= self.labelled:
            item = item._replace(label=None)
        elif item.label is None:
            raise DataError(f"{item.name}: it has no label, and can't be trained on")
        return self._augmented(item, self.augmentation, rng, view)

    def _augmented(self, item: Item, augmentation: Augmentation, rng: np.random.Generator, view: int | None) -> Sample:
        height, width = item.image.shape[:2]
        share = partial(self._largest_share, item.label, item.name)
        window = augmentation.window(rng, height, width, self.image_scale, share)
        part = augmentation.recolour(cut(item.image, window, cv2.INTER_LINEAR), int(rng.integers(2**31)))
        if item.label is None:
            label = np.zeros(part.shape[:2], np.uint8)
        else:
            # Mapped after the cut, so that no other pixel is touched; INTER_NEAREST would lean to the left.
            label = self.labels(cut(item.label, window, cv2.INTER_NEAREST_EXACT), item.name)
        picture, label = place(part, window, self.fill), place(label, window, [self.ignore_index])
        sample = _sample(picture, label, window.box(height, width), item.name)
        colours = None if augmentation.jitter is None else torch.from_numpy(augmentation.jitter.draw(rng))
        return sample._replace(view=view, colours=colours, labelled=item.label is not None)

    def _largest_share(self, label: UInt8 | None, name: str, window: Window) -> float:
        if label is None:
            return 0.0
        part = label[window.top : window.top + window.height, window.left : window.left + window.width]
        # A grid of about 64 x 64 of its pixels tells as much.
        steps = [max(1, side // 64) for side in part.shape[:2]]
        counts = np.bincount(self.labels(np.ascontiguousarray(part[:: steps[0], :: steps[1]]), name).ravel())
        if len(counts) > self.ignore_index:
            counts[self.ignore_index] = 0
        return float(counts.max() / max(1, counts.sum())) if counts.any() else 1.0


def _sample(image: Raster, label: UInt8, box: NDArray[np.float32], name: str) -> Sample:
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    if len(planes) > 1:
        cv2.split(image, list(planes))  # a fifth of a transposition's time
    else:
        planes[0] = image[..., 0]
    return Sample(torch.from_numpy(planes), torch.from_numpy(label), torch.from_numpy(box), name)


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples of one size together; those without labels stand behind the others."""
    sizes = {(tuple(s.image.shape), tuple(s.label.shape)) for s in samples}
    if len(sizes) > 1:
        raise DataError(
            f"images of different sizes can't stand in one batch: {samples[0].name} and others; "
            "set data.eval_batch_size=1, or data.augment.crop for training"
        )
    images, labels, boxes = (default_collate([s[i] for s in samples]) for i in range(3))
    views = [s.view for s in samples if s.view is not None]
    colours = [s.colours for s in samples if s.colours is not None]
    labelled = sum(s.labelled for s in samples)
    return Batch(
        images,
        labels,
        boxes,
        [s.name for s in samples],
        views or None,
        torch.stack(colours) if colours else None,
        labelled if labelled < len(samples) else None,
    )


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index): the order depends on seed and epoch alone, and every rank has its own share.

    Shares of the training set are equal (the longer ones lose a sample); those of an evaluation set are complete, so
    that no image is counted twice.
    """

    def __init__(self, length: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1) -> None:
        self.length, self.seed, self.shuffle, self.rank, self.world = length, seed, shuffle, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.world
        return len(range(self.rank, self.length, self.world))

    def __iter__(self) -> Iterator[Key]:
        if not self.shuffle:
            yield from ((0, i) for i in range(self.rank, self.length, self.world))
            return
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        share = order[self.rank :: self.world][: len(self)]
        yield from ((self.epoch, int(i)) for i in share)


class TrainingSampler(Sampler[Key]):
    """The epochs of a training one after the other, as one sequence of full batches that can begin anywhere.

    To go on after a stop is then to begin at the batch that comes next, in the middle of an epoch too. The samples that
    fill no batch at the end of an epoch are left out.

    Args:
        epochs: the samples of each epoch.
        batch_size: of this process.
        batches: of the whole training.
        first: the batch to begin at; those before it count in the length, but are not made.
    """

    def __init__(self, epochs: EpochSampler, batch_size: int, batches: int, first: int = 0) -> None:
        self.epochs, self.batch_size, self.batches, self.first = epochs, batch_size, batches, first

    def __len__(self) -> int:
        return min(self.batches * self.batch_size, sys.maxsize)

    def __iter__(self) -> Iterator[Key]:
        each = len(self.epochs) // self.batch_size
        for epoch in range(self.first // each, -(-self.batches // each)):
            self.epochs.set_epoch(epoch)
            skipped = max(0, self.first - epoch * each) * self.batch_size
            left = min(each, self.batches - epoch * each) * self.batch_size
            yield from itertools.islice(self.epochs, skipped, left)
