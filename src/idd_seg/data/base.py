"""The LightningDataModule that all data sets share: loaders, augmentation, normalisation on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from idd_seg.data.augment import Augmentation
from idd_seg.data.dataset import EpochSampler, LabelMap, Sample, SegmentationDataset, collate
from idd_seg.data.source import Source
from idd_seg.errors import ConfigError
from idd_seg.types import Batch


class SegmentationDataModule(L.LightningDataModule):
    """A data set of photographs and label maps; a subclass says where they are by `make_source`.

    Args:
        name: what the data set is called in tables and run folders.
        class_names, palette: K names, and K RGB colours 0 to 255.
        mean, std: of the normalised images, in RGB, relative to 0 to 1.
        ignored: values in label files, beside `ignore_index`, that take no part.
        batch_size, eval_batch_size: images per process and step.
        image_scale: size of the images that the network sees, relative to the files; labels are judged at full size.
        num_workers: loader processes; 0 loads in the training process.
        seed: samples and their order depend on (seed, epoch, index) alone, whatever the number of workers.

    Raises:
        ConfigError: for a value out of range, or class names and colours that do not match.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        class_names: Sequence[str],
        palette: Sequence[Sequence[int]],
        mean: Sequence[float],
        std: Sequence[float],
        ignore_index: int = 255,
        ignored: Sequence[int] = (),
        label_values: Mapping[int, int] | None = None,
        augment: Augmentation | None = None,
        image_scale: float = 1.0,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not len(class_names) == len(palette) == num_classes:
            raise ConfigError(
                f"data={name}: num_classes is {num_classes}, but there are {len(class_names)} class names "
                f"and {len(palette)} colours"
            )
        if min(batch_size, eval_batch_size) < 1 or num_workers < 0:
            raise ConfigError(
                "data.batch_size and data.eval_batch_size must be at least 1, data.num_workers at least 0"
            )
        if not image_scale > 0:
            raise ConfigError(f"data.image_scale must be > 0, got {image_scale}")
        self.name, self.num_classes, self.ignore_index = name, num_classes, ignore_index
        self.class_names, self.palette = list(class_names), [tuple(colour) for colour in palette]
        self.mean, self.std = torch.tensor(list(mean)), torch.tensor(list(std))
        self.labels = LabelMap(num_classes, ignore_index, ignored, label_values)
        self.augment, self.image_scale = augment or Augmentation(), image_scale
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.datasets: dict[str, SegmentationDataset] = {}

    def make_source(self, split: str) -> Source:
        """Return the items of `train`, `val` or `test`."""
        raise TypeError(f"{type(self).__name__} does not implement make_source")

    def dataset(self, split: str) -> SegmentationDataset:
        """Return the samples of a split: augmented for `train`, whole photographs otherwise."""
        if split not in self.datasets:
            self.datasets[split] = SegmentationDataset(
                self.make_source(split),
                self.labels,
                self.ignore_index,
                self.seed,
                self.image_scale,
                self.augment if split == "train" else None,
                [round(255 * float(m)) for m in self.mean],
            )
        return self.datasets[split]

    def setup(self, stage: str) -> None:
        """Find the files, so that what is missing is said before anything is trained."""
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            self.dataset(split)

    def loader(self, split: str, *, shuffle: bool = False, batch_size: int | None = None) -> DataLoader[Sample]:
        """Return the batches of a split; shuffled ones are all full."""
        dataset = self.dataset(split)
        rank, world = _place()
        sampler = EpochSampler(len(dataset), self.seed, shuffle=shuffle, rank=rank, world=world)
        batch_size = batch_size or (self.batch_size if shuffle else self.eval_batch_size)
        if shuffle and len(sampler) < batch_size:
            raise ConfigError(
                f"data.batch_size={batch_size} is more than the {len(sampler)} training images of each process"
            )
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_quiet_worker,
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self.loader("test")

    def normalise(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> float32 of mean 0 and deviation 1, on the image's device."""
        shape = (1, 3, 1, 1)
        scale = (1 / (255 * self.std)).view(shape).to(image.device)
        shift = (self.mean / self.std).view(shape).to(image.device)
        return image.float().mul_(scale).sub_(shift)

    def on_device(self, batch: Batch, device: torch.device) -> Batch:
        """Move a loader's batch to a device and normalise it there, outside a Trainer."""
        moved = Batch(batch.image.to(device), batch.label.to(device), batch.box.to(device), batch.names)
        return self.on_after_batch_transfer(moved, 0)

    def one(self, split: str, index: int, device: torch.device) -> tuple[Sample, Batch]:
        """Return a sample of a split as it is, and as a normalised batch of one."""
        sample = self.dataset(split)[(0, index)]
        return sample, self.on_device(collate([sample]), device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device: a quarter of the bytes cross the bus, and no worker spends time on it."""
        return Batch(self.normalise(batch.image), batch.label.long(), batch.box, batch.names)


def _quiet_worker(worker: int) -> None:
    # One thread each: several workers with a thread pool of their own slow each other down.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
