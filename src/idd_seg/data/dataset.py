"""From items to samples: augmentation seeded for each sample, labels mapped and checked, batches put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from idd_seg.data.augment import Augmentation, show, whole
from idd_seg.data.source import Source, UInt8
from idd_seg.errors import ConfigError, DataError
from idd_seg.types import Batch

Key = tuple[int, int]  # (epoch, index): all that a sample depends on beside the seed


class Sample(NamedTuple):
    """One training or validation sample; `Batch` describes the fields."""

    image: Tensor
    label: Tensor
    box: Tensor
    name: str


class LabelMap:
    """From the values in label files to class ids.

    Args:
        num_classes: K; values 0..K-1 are classes as they are, unless `mapping` says otherwise.
        mapping: value in the file -> class id.
        ignored: values in the file that take no part.
        ignore_index: what they become.
    """

    def __init__(
        self, num_classes: int, ignore_index: int, ignored: Sequence[int] = (), mapping: Mapping[int, int] | None = None
    ) -> None:
        pairs = {i: i for i in range(num_classes)} if mapping is None else dict(mapping)
        for value, class_id in pairs.items():
            if not (0 <= int(value) <= 255 and 0 <= class_id < num_classes):
                raise ConfigError(
                    f"data.label_values maps {value} to {class_id}; values are 0 to 255, classes 0 to {num_classes - 1}"
                )
        self.num_classes, self.ignored = num_classes, sorted({*ignored, ignore_index})
        self.table: NDArray[np.int16] = np.full(256, -1, np.int16)
        for value, class_id in pairs.items():
            self.table[int(value)] = class_id
        for value in self.ignored:
            self.table[int(value)] = ignore_index

    def __call__(self, label: UInt8, name: str) -> UInt8:
        """Map (H, W) values to class ids.

        Raises:
            DataError: that names the sample and the first value that is no class.
        """
        mapped = self.table[label]
        if mapped.min() < 0:
            value = int(label[mapped < 0].flat[0])
            raise DataError(
                f"{name}: its label has the value {value}; the data set has the classes 0 to {self.num_classes - 1} "
                f"and ignores {', '.join(map(str, self.ignored))} (data.num_classes, data.ignored)"
            )
        return mapped.astype(np.uint8)


class SegmentationDataset(Dataset[Sample]):
    """Samples of a source.

    Args:
        augmentation: None shows whole photographs, and labels in their original size.
        image_scale: size of the images that the network sees, relative to the files.
        fill: RGB of the padding.
    """

    def __init__(
        self,
        source: Source,
        labels: LabelMap,
        ignore_index: int,
        seed: int,
        image_scale: float = 1.0,
        augmentation: Augmentation | None = None,
        fill: Sequence[int] = (124, 116, 104),
    ) -> None:
        self.source, self.labels, self.ignore_index, self.seed = source, labels, ignore_index, seed
        self.image_scale, self.augmentation, self.fill = image_scale, augmentation, fill

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        image, label, name = self.source[index]
        height, width = label.shape
        if self.augmentation is None:
            window = whole(height, width, self.image_scale)
            return self._sample(
                show(image, window, cv2.INTER_LINEAR, self.fill), label, window.box(height, width), name
            )
        rng = np.random.default_rng([self.seed, epoch, index])
        window = self.augmentation.window(rng, height, width, self.image_scale)
        picture = self.augmentation.recolour(show(image, window, cv2.INTER_LINEAR, self.fill), int(rng.integers(2**31)))
        label = show(label, window, cv2.INTER_NEAREST_EXACT, [self.ignore_index])  # INTER_NEAREST leans to the left
        return self._sample(picture, label, window.box(height, width), name)

    def _sample(self, image: UInt8, label: UInt8, box: NDArray[np.float32], name: str) -> Sample:
        return Sample(
            torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            torch.from_numpy(self.labels(label, name)),
            torch.from_numpy(box),
            name,
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples of one size together."""
    sizes = {(tuple(s.image.shape), tuple(s.label.shape)) for s in samples}
    if len(sizes) > 1:
        raise DataError(
            f"images of different sizes can't stand in one batch: {samples[0].name} and others; "
            "set data.eval_batch_size=1, or data.augment.crop for training"
        )
    images, labels, boxes = (default_collate([s[i] for s in samples]) for i in range(3))
    return Batch(images, labels, boxes, [s.name for s in samples])


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
