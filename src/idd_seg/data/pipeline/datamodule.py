"""The LightningDataModule that all data sets share: loaders, augmentation, normalisation on the device."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import cv2
import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.cache import CachedSource
from idd_seg.data.pipeline.dataset import EpochSampler, Sample, SegmentationDataset, TrainingSampler, collate
from idd_seg.data.pipeline.decode import MASKS
from idd_seg.data.pipeline.jitter import recoloured
from idd_seg.data.pipeline.labels import ColourMap, LabelMap, ToClasses
from idd_seg.data.pipeline.prefetch import Feed
from idd_seg.data.pipeline.shared_memory import shared_folder
from idd_seg.data.pipeline.source import Part, Source
from idd_seg.data.pipeline.submission import ServerFormat
from idd_seg.data.pipeline.worker_errors import scarce
from idd_seg.data.pipeline.worker_timeout import PARTS, NamingLoader, be_patient
from idd_seg.errors import ConfigError, DataError
from idd_seg.ops.private_api import batches_done
from idd_seg.types import Batch

CACHES = ("none", "ram", "disk")


class SegmentationDataModule(L.LightningDataModule):
    """A data set of photographs and label maps; a subclass says where they are by `make_source`.

    Args:
        name: what the data set is called in tables and run folders.
        class_names, palette: K names, and K RGB colours 0 to 255.
        mean, std: of the normalised images, in RGB, relative to 0 to 1.
        ignored: values in label files, beside `ignore_index`, that take no part.
        batch_size, eval_batch_size: images per process and step.
        masks: how label files are read: `indices` (grey values or a palette's indices), `palette` or `rgb` (colours).
        ignored_colours: colours in such label files that take no part.
        image_scale: size of the images that the network sees, relative to the files; labels are judged at full size.
        cache: `none`; `disk` keeps decoded pictures in `cache_dir`; `ram` in memory, for the length of the run.
        counts: number of items of each complete split, for `prepare`.
        held_out: the last of so many parts of the training split stands in for `val`, and is not trained on; None
            leaves both as they are.
        frozen_epochs: number of epochs after which the augmentation is repeated; None draws anew in each.
        num_workers: loader processes; 0 loads in the training process.
        timeout_s: seconds that loader processes may take for a sample, and all together for the next batch, before
            the run ends with the names of the files; None waits for ever, as a run without loader processes does.
        seed: samples and their order depend on (seed, epoch, index) alone, whatever the number of workers.

    Raises:
        ConfigError: for a value out of range, or class names and colours that do not match.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    server: ClassVar[ServerFormat | None] = None  # how the owner's server takes predictions of the test split

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
        masks: str = "indices",
        ignored_colours: Sequence[Sequence[int]] = (),
        augment: Augmentation | None = None,
        image_scale: float = 1.0,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        cache: str = "none",
        cache_dir: str | None = None,
        counts: Mapping[str, int] | None = None,
        frozen_epochs: int | None = None,
        held_out: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__()
        if not len(class_names) == len(palette) == num_classes:
            raise ConfigError(
                f"data={name}: num_classes is {num_classes}, but there are {len(class_names)} class names "
                f"and {len(palette)} colours"
            )
        numbers = batch_size, eval_batch_size, num_workers + 1 if isinstance(num_workers, int) else None
        if not all(isinstance(number, int) and number >= 1 for number in numbers):
            raise ConfigError(
                "data.batch_size and data.eval_batch_size must be whole numbers >= 1, data.num_workers one >= 0, "
                f"got '{batch_size}', '{eval_batch_size}' and '{num_workers}'"
            )
        if not image_scale > 0:
            raise ConfigError(f"data.image_scale must be > 0, got {image_scale}")
        self.name, self.num_classes, self.ignore_index = name, num_classes, ignore_index
        self.class_names, self.palette = list(class_names), [tuple(colour) for colour in palette]
        if not len(mean) == len(std) == 3 or min(std) <= 0:
            raise ConfigError(f"data.mean and data.std are three numbers each, std above 0; got {mean} and {std}")
        if 0 <= ignore_index < num_classes:
            raise ConfigError(
                f"data.ignore_index={ignore_index} is the class '{class_names[ignore_index]}'; take a value that is no "
                "class (255). To leave classes out, name their values in data.ignored"
            )
        self.mean, self.std = torch.tensor(list(mean)), torch.tensor(list(std))
        if masks not in MASKS:
            raise ConfigError(f"data.masks must be one of {', '.join(MASKS)}, got '{masks}'")
        if cache not in CACHES:
            raise ConfigError(f"data.cache must be one of {', '.join(CACHES)}, got '{cache}'")
        if cache == "disk" and not cache_dir:
            raise ConfigError("data.cache=disk needs a folder: data.cache_dir=PATH")
        self.masks, self.cache, self.cache_dir, self.counts = masks, cache, cache_dir, dict(counts or {})
        self.labels: ToClasses
        if masks == "indices":
            self.labels = LabelMap(num_classes, ignore_index, ignored, label_values)
        else:
            self.labels = ColourMap(self.palette, ignore_index, ignored_colours)
        self.augment: Augmentation | None = augment or Augmentation()
        if frozen_epochs is not None and (not isinstance(frozen_epochs, int) or frozen_epochs < 1):
            raise ConfigError(f"data.frozen_epochs must be a number of epochs >= 1 or null, got '{frozen_epochs}'")
        if held_out is not None and (not isinstance(held_out, int) or held_out < 2):
            raise ConfigError(f"data.held_out must be a number of parts >= 2 or null, got '{held_out}'")
        self.frozen_epochs, self.held_out = frozen_epochs, held_out
        if timeout_s is not None and (isinstance(timeout_s, bool) or not 0 < timeout_s < 1e6):
            raise ConfigError(f"data.timeout_s must be a number of seconds > 0, or null, got '{timeout_s}'")
        self.timeout_s = timeout_s
        self.image_scale = image_scale
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.datasets: dict[str, SegmentationDataset] = {}
        self.feed: Feed | None = None  # of the training in progress

    @property
    def judged(self) -> str:
        """What a training is judged on, in words: the split `val`, or the part of `train` that stands in for it."""
        return "val" if self.held_out is None else f"train, last of {self.held_out} parts"

    def make_source(self, split: str) -> Source:
        """Return the items of one of `splits`."""
        raise TypeError(f"{type(self).__name__} does not implement make_source")

    def labelled(self, split: str) -> bool:
        """Tell whether the items of a split have labels, by the first one's."""
        return self.dataset(split).source[0].label is not None

    def dataset(self, split: str) -> SegmentationDataset:
        """Return the samples of a split: augmented for `train`, whole photographs otherwise."""
        if split not in self.datasets:
            if split not in self.splits:
                raise ConfigError(f"data={self.name} has no split '{split}'; it has {', '.join(self.splits)}")
            self.datasets[split] = SegmentationDataset(
                self._cached(self._source(split)),
                self.labels,
                self.ignore_index,
                self.seed,
                self.image_scale,
                self.augment if split == "train" else None,
                [round(255 * float(m)) for m in self.mean],
                self.frozen_epochs,
            )
        return self.datasets[split]

    def _source(self, split: str) -> Source:
        if self.held_out is None or split not in ("train", "val"):
            return self.make_source(split)
        source = self.make_source("train")
        cut = len(source) - len(source) // self.held_out
        return Part(source, *((0, cut) if split == "train" else (cut, len(source))))

    def _cached(self, source: Source) -> Source:
        if self.cache == "none":
            return source
        cached = CachedSource(source, Path(self.cache_dir or "") if self.cache == "disk" else shared_folder())
        cached.warn_if_small()
        return cached

    def setup(self, stage: str) -> None:
        """Find the files, so that what is missing is said before anything is trained."""
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
        for split in stages.get(stage, ()):
            self.dataset(split)

    def loader(
        self, split: str, *, shuffle: bool = False, batch_size: int | None = None, part: tuple[int, int] | None = None
    ) -> DataLoader[Sample]:
        """Return the batches of a split; shuffled ones are all full.

        Args:
            part: first batch and end of a training, counted over the epochs; None is one epoch.
        """
        dataset = self.dataset(split)
        rank, world = _place()
        sampler: EpochSampler | TrainingSampler
        sampler = EpochSampler(len(dataset), self.seed, shuffle=shuffle, rank=rank, world=world)
        if len(dataset) < world:
            raise ConfigError(
                f"the split '{split}' has {len(dataset)} picture(s), fewer than the {world} processes; take fewer "
                "processes (trainer.devices), or a larger split"
            )
        batch_size = batch_size or (self.batch_size if shuffle else self.eval_batch_size)
        if shuffle and len(sampler) < batch_size:
            raise ConfigError(
                f"data.batch_size={batch_size} is more than the {len(sampler)} training images of each process"
            )
        if part is not None:
            sampler = TrainingSampler(sampler, batch_size, batches=part[1], first=part[0])
        if self.num_workers:
            self._warn_if_scarce(dataset, batch_size)
        return NamingLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=partial(_begin_worker, self.timeout_s),
            timeout=self.timeout_s / PARTS if self.timeout_s is not None and self.num_workers else 0,
        )

    def _warn_if_scarce(self, dataset: SegmentationDataset, batch_size: int) -> None:
        crop = None if dataset.augmentation is None else dataset.augmentation.crop
        try:
            height, width = dataset.source[0].image.shape[:2] if crop is None else crop
        except DataError:
            return  # whoever reads it will say so
        scale = self.image_scale if crop is None else 1.0
        pixels = height * width * (1 + 3 * scale**2)  # the label's, and the image's bytes
        # Each process makes a batch while another one waits.
        if problem := scarce(int(2 * self.num_workers * batch_size * pixels), self.num_workers):
            warnings.warn(problem, stacklevel=3)

    def train_dataloader(self) -> DataLoader[Sample] | Feed:
        """Load the batches of the whole training, from where it stands; outside of a trainer, of one epoch."""
        if self.trainer is None:
            return self.loader("train", shuffle=True)
        done = batches_done(self.trainer)
        end = self.trainer.max_steps * self.trainer.accumulate_grad_batches
        self.feed = Feed(self.loader("train", shuffle=True, part=(done, end)), self.trainer.strategy.root_device)
        return self.feed

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Load the photographs of the `predict` split; their labels are all ignored."""
        return self.loader("predict")

    def normalise(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB -> float32 of mean 0 and deviation 1, on the image's device."""
        shape = (1, 3, 1, 1)
        scale = (1 / (255 * self.std)).view(shape).to(image.device)
        shift = (self.mean / self.std).view(shape).to(image.device)
        return image.float().mul_(scale).sub_(shift)

    def on_device(self, batch: Batch, device: torch.device) -> Batch:
        """Move a loader's batch to a device and normalise it there, outside a Trainer."""
        return self.on_after_batch_transfer(batch.to(device), 0)

    def one(self, split: str, index: int, device: torch.device) -> tuple[Sample, Batch]:
        """Return a sample of a split as it is, and as a normalised batch of one."""
        sample = self.dataset(split)[(0, index)]
        return sample, self.on_device(collate([sample]), device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device: a quarter of the bytes cross the bus, and no worker spends time on it."""
        image = batch.image if batch.colours is None else recoloured(batch.image, batch.colours)
        return replace(batch, image=self.normalise(image), label=batch.label.long(), colours=None)


def _begin_worker(timeout_s: float | None, worker: int) -> None:
    be_patient(timeout_s)
    # One thread each: several workers with a thread pool of their own slow each other down.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # The run handles them; what a worker inherits of that would speak for the run's other processes too.
    for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_DFL if name == signal.SIGTERM else signal.SIG_IGN)


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
