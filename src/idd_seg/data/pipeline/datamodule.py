"""The LightningDataModule that all data sets share: loaders, augmentation, normalisation on the device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.cache import CachedSource
from idd_seg.data.pipeline.dataset import EpochSampler, Sample, SegmentationDataset, TrainingSampler, collate
from idd_seg.data.pipeline.files import PairSource
from idd_seg.data.pipeline.fingerprint import Fingerprint, fingerprint
from idd_seg.data.pipeline.jitter import recoloured
from idd_seg.data.pipeline.mixing import MixedSampler, pictures_of
from idd_seg.data.pipeline.options import REST, DataOptions, TeacherLabels
from idd_seg.data.pipeline.pixels import RGB
from idd_seg.data.pipeline.prefetch import Prefetcher
from idd_seg.data.pipeline.processes import begin_worker, rank_and_world
from idd_seg.data.pipeline.shared_memory import shared_folder
from idd_seg.data.pipeline.source import Joined, Source, innermost
from idd_seg.data.pipeline.split import by_labels, training_parts
from idd_seg.data.pipeline.submission import ServerFormat
from idd_seg.data.pipeline.worker_errors import warn_if_scarce
from idd_seg.data.pipeline.worker_timeout import PARTS, NamingLoader
from idd_seg.data.unlabelled.find import find_unlabelled
from idd_seg.data.unlabelled.photographs import Unlabelled
from idd_seg.errors import ConfigError
from idd_seg.ops.private_api import batches_done
from idd_seg.ops.said_once import is_new
from idd_seg.types import Batch

UNLABELLED = "unlabelled"  # the pictures without labels, by the name of a split
SHOWN = "(shown)"  # those of a training, with labels and without


class SegmentationDataModule(L.LightningDataModule):
    """A data set of photographs and label maps; a subclass says where they are by `make_source`.

    Args:
        options: those of `DataOptions`, which says what each means.

    Raises:
        ConfigError: for a value out of range, or class names and colours that do not match.
    """

    OPTIONS: ClassVar[type] = DataOptions  # whose types are those of `options`
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    server: ClassVar[ServerFormat | None] = None  # how the owner's server takes predictions of the test split

    def __init__(self, **options: Any) -> None:
        super().__init__()
        chosen = DataOptions(**options)
        self.name, self.num_classes, self.ignore_index = chosen.name, chosen.num_classes, chosen.ignore_index
        self.class_names = list(chosen.class_names)
        self.palette: list[tuple[int, ...]] = [tuple(colour) for colour in chosen.palette]
        self.masks, self.labels, self.pixels = chosen.masks, chosen.to_classes(), chosen.pixels
        self.mean, self.std = torch.tensor(list(chosen.mean)), torch.tensor(list(chosen.std))
        self.image_scale = chosen.image_scale
        self.augment: Augmentation | None = chosen.augment or Augmentation()
        self.batch_size, self.eval_batch_size, self.seed = chosen.batch_size, chosen.eval_batch_size, chosen.seed
        self.held_out, self.frozen_epochs = chosen.held_out, chosen.frozen_epochs
        self.labelled_share = chosen.labelled_share
        self.num_workers, self.timeout_s = chosen.num_workers, chosen.timeout_s
        self.cache, self.cache_dir, self.counts = chosen.cache, chosen.cache_dir, dict(chosen.counts or {})
        # Nothing of it where no picture of a batch is without labels.
        self.unlabelled = chosen.unlabelled if chosen.unlabelled_share else None
        self.unlabelled_share = chosen.unlabelled_share if self.unlabelled is not None else 0.0
        self.teacher_labels = TeacherLabels(**chosen.teacher_labels or {})
        self.without = pictures_of(self.unlabelled_share, self.batch_size)  # labels, of each batch
        self.said: set[str] = set()
        if not self.pixels.photograph:
            self.augment, left_out = self.augment.for_pixels(self.pixels)
            if left_out is not None:
                self.say(left_out)
        self.datasets: dict[str, SegmentationDataset] = {}
        self.feed: Prefetcher | None = None  # of the training in progress
        self.judged_part: tuple[int, int] | None = None  # batches that are judged, and all that there are

    @property
    def judged(self) -> str:
        """What a training is judged on, in words: the split `val`, or the part of `train` that stands in for it."""
        split = "val" if self.held_out is None else f"train, last of {self.held_out} parts"
        if self.judged_part is None:
            return split
        judged, there = self.judged_part
        return f"{split}, first {judged} of {there} batches{' of each process' if rank_and_world()[1] > 1 else ''}"

    def judge_part(self, limit: int | float) -> int | float:
        """Judge a training by the first batches of what is held out; return their number, or 1.0 for all.

        Args:
            limit: number of batches, or their share, of which at least one batch is taken.
        """
        rank, world = rank_and_world()
        pictures = len(EpochSampler(len(self.dataset("val")), 0, shuffle=False, rank=rank, world=world))
        there = -(-pictures // self.eval_batch_size)
        judged = min(limit, there) if isinstance(limit, int) else max(1, int(limit * there))
        self.judged_part = (judged, there) if judged < there else None
        return judged if judged < there else 1.0

    def say(self, text: str) -> None:
        """Print a choice that was made, once a run; among several processes the first one does."""
        if text not in self.said and rank_and_world()[0] == 0 and is_new(text):
            print(text, flush=True)
        self.said.add(text)

    def make_source(self, split: str) -> Source:
        """Return the items of one of `splits`."""
        raise TypeError(f"{type(self).__name__} does not implement make_source")

    def labelled(self, split: str) -> bool:
        """Tell whether the items of a split have labels, by the first one's."""
        return self.dataset(split).source[0].label is not None

    def dataset(self, split: str) -> SegmentationDataset:
        """Return the samples of a split: augmented for `train`, whole photographs otherwise."""
        if split not in self.datasets:
            there = [*self.splits, UNLABELLED] if self.unlabelled is not None else self.splits
            if split not in there:
                raise ConfigError(f"data={self.name} has no split '{split}'; it has {', '.join(there)}")
            augmentation = self.augment if split == "train" else None
            self.datasets[split] = self._samples(self._cached(self._source(split)), augmentation)
        return self.datasets[split]

    def _samples(
        self, source: Source, augmentation: Augmentation | None, labelled: int | None = None
    ) -> SegmentationDataset:
        return SegmentationDataset(
            source,
            self.labels,
            self.ignore_index,
            self.seed,
            image_scale=self.image_scale,
            augmentation=augmentation,
            fill=[round(self.pixels.white * float(m)) for m in self.mean],
            frozen_epochs=self.frozen_epochs,
            labelled=labelled,
        )

    def unlabelled_source(self) -> Source | None:
        """Return the pictures without labels, if a training shows some."""
        return None if self.unlabelled is None else self.dataset(UNLABELLED).source

    def shown(self) -> SegmentationDataset:
        """Return all that a training shows: the split `train`, and behind it the pictures without labels."""
        labelled, without = self.dataset("train"), self.unlabelled_source()
        if without is None:
            return labelled
        if SHOWN not in self.datasets:
            joined = Joined(labelled.source, without)
            self.datasets[SHOWN] = self._samples(joined, self.augment, len(labelled))
        return self.datasets[SHOWN]

    def fingerprint(self, split: str) -> Fingerprint:
        """Return which files a split consists of, wherever the data set lies."""
        source = self.dataset(split).source
        own = innermost(source)
        return own.fingerprint() if isinstance(own, Unlabelled) else fingerprint(source, getattr(self, "root", None))

    @property
    def read_splits(self) -> list[str]:
        """What a training reads, by the names of splits."""
        return ["train", "val", *([UNLABELLED] if self.unlabelled is not None else [])]

    def _source(self, split: str) -> Source:
        if split == UNLABELLED and self.unlabelled != REST:
            kept = None if self.cache_dir is None else Path(self.cache_dir).expanduser() / "shards"
            return self._as_pixels(find_unlabelled(str(self.unlabelled), getattr(self, "root", None), kept))
        if split not in ("train", UNLABELLED) and (self.held_out is None or split != "val"):
            return self._as_pixels(self.make_source(split))
        trained_on, judged_on = training_parts(self._as_pixels(self.make_source("train")), self.held_out)
        labelled, rest = by_labels(trained_on, self.labelled_share)
        return {"train": labelled, UNLABELLED: rest, "val": judged_on}[split]

    def _as_pixels(self, source: Source) -> Source:
        """Let a source read pictures of the data's channels and bits."""
        if not self.pixels.photograph:
            if not isinstance(source, PairSource | Unlabelled):
                raise ConfigError(
                    f"data={self.name} makes photographs of {RGB}; {self.pixels} are for pictures in files"
                )
            source.pixels = self.pixels
        return source

    def _cached(self, source: Source) -> Source:
        if self.cache == "none":
            return source
        cached = CachedSource(source, Path(self.cache_dir or "") if self.cache == "disk" else shared_folder())
        cached.warn_if_small()
        return cached

    def setup(self, stage: str) -> None:
        """Find the files, so that what is missing is said before anything is trained."""
        stages = {"fit": self.read_splits, "validate": ["val"], "test": ["test"], "predict": ["predict"]}
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
        rank, world = rank_and_world()
        sampler: EpochSampler | TrainingSampler | MixedSampler
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
        if self.without and split == "train" and shuffle:
            first, batches = part or (0, None)
            kinds = (len(dataset), len(self.dataset(UNLABELLED)))
            dataset = self.shown()
            sampler = MixedSampler(
                *kinds, batch_size, self.without, self.seed, rank=rank, world=world, batches=batches, first=first
            )
        elif part is not None:
            sampler = TrainingSampler(sampler, batch_size, batches=part[1], first=part[0])
        if self.num_workers:
            warn_if_scarce(dataset, batch_size, self.num_workers, self.pixels.bytes)
        return NamingLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=shuffle,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=partial(begin_worker, self.timeout_s),
            timeout=self.timeout_s / PARTS if self.timeout_s is not None and self.num_workers else 0,
        )

    def train_dataloader(self) -> DataLoader[Sample] | Prefetcher:
        """Load the batches of the whole training, from where it stands; outside of a trainer, of one epoch."""
        if self.trainer is None:
            return self.loader("train", shuffle=True)
        done = batches_done(self.trainer)
        end = self.trainer.max_steps * self.trainer.accumulate_grad_batches
        self.feed = Prefetcher(self.loader("train", shuffle=True, part=(done, end)), self.trainer.strategy.root_device)
        return self.feed

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Load the photographs of the `predict` split; their labels are all ignored."""
        return self.loader("predict")

    def normalise(self, image: Tensor) -> Tensor:
        """(N, C, H, W) uint8 RGB, or as `pixels` says -> float32 of mean 0 and deviation 1, on the image's device."""
        shape = (1, -1, 1, 1)
        scale = (1 / (self.pixels.white * self.std)).view(shape).to(image.device)
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
        colours, white = batch.colours, self.pixels.white
        image = batch.image if colours is None else recoloured(batch.image, colours, white)
        return replace(batch, image=self.normalise(image), label=batch.label.long(), colours=None)
