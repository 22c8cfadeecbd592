"""Reading and augmenting one sample on one core, against the way that scales whole pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from omegaconf import DictConfig

from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import time_all
from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.cache import CachedSource
from idd_seg.data.pipeline.dataset import SegmentationDataset
from idd_seg.data.pipeline.files import Pair, PairSource
from idd_seg.data.pipeline.labels import LabelMap
from idd_seg.data.pipeline.source import Source

CROP, SCALE, CLASSES = (512, 512), (0.5, 2.0), 34
MEAN = (124, 116, 104)
PHOTOGRAPHS = 4


def run(cfg: DictConfig, device: torch.device) -> Iterator[Row]:
    """Compare our samples with whole-image augmentation, at the sizes of Cityscapes and Pascal VOC."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        city = _write(Path(folder) / "city", (1024, 2048), ".png")
        voc = _write(Path(folder) / "voc", (375, 500), ".jpg")
        cache = Path(folder) / "cache"
        yield from _compare("Cityscapes-size PNG to a 512 x 512 crop", city, cfg.repeats, cache, 1.25, 20)
        yield from _compare("VOC-size JPEG to a 512 x 512 crop", voc, cfg.repeats, cache, 1.25, None)


def _write(folder: Path, size: tuple[int, int], suffix: str) -> list[Pair]:
    """Write photographs with the grain of real ones, and labels of large regions."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(PHOTOGRAPHS):
        coarse = rng.integers(0, 256, (32, 64, 3)).astype(np.uint8)
        soft = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
        photograph = np.clip(soft + rng.normal(0, 3, (*size, 3)), 0, 255).astype(np.uint8)
        regions = rng.integers(0, CLASSES, (16, 32)).astype(np.uint8)
        pair = Pair(folder / f"{i}{suffix}", folder / f"{i}_label.png")
        cv2.imwrite(str(pair.image), photograph)
        cv2.imwrite(str(pair.label), cv2.resize(regions, size[::-1], interpolation=cv2.INTER_NEAREST))
        pairs.append(pair)
    return pairs


def _compare(what: str, pairs: list[Pair], repeats: int, cache: Path, bar: float, cache_bar: float | None) -> list[Row]:
    source = PairSource(pairs)
    cases = {
        "whole": _whole_image(pairs),
        "ours": _samples(source),
        "cached": _samples(CachedSource(source, cache)),
    }
    # Scales are random: many samples, so that all cases have met large and small ones.
    found = time_all(cases, repeats * 4, warmup=PHOTOGRAPHS * 2)
    whole, ours, cached = (found[name] for name in cases)
    against = f"whole image, albumentations: {whole}"
    return [
        Row(what, str(ours), against, whole.median / ours.median, bar=bar),
        Row(f"{what}, cache=disk", str(cached), against, whole.median / cached.median, bar=cache_bar),
    ]


def _samples(source: Source) -> Callable[[], object]:
    augmentation = Augmentation(CROP, SCALE, flip=0.5)
    dataset = SegmentationDataset(source, LabelMap(CLASSES, 255), 255, 0, augmentation=augmentation, fill=MEAN)
    numbers = count()

    def one() -> object:
        i = next(numbers)
        return dataset[(i, i % PHOTOGRAPHS)]

    return one


def _whole_image(pairs: list[Pair]) -> Callable[[], object]:
    """Decode, scale the whole image and label, pad, crop, flip, normalise to float."""
    import albumentations as A

    low, high = SCALE
    compose = A.Compose(
        [
            A.RandomScale((low - 1, high - 1), p=1),
            A.PadIfNeeded(*CROP, fill=MEAN, fill_mask=255),
            A.RandomCrop(*CROP),
            A.HorizontalFlip(),
            A.Normalize(),
        ],
        seed=0,
    )
    numbers = count()

    def one() -> object:
        pair = pairs[next(numbers) % PHOTOGRAPHS]
        image = cv2.cvtColor(cv2.imread(str(pair.image)), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED)
        found = compose(image=image, mask=label)
        return torch.from_numpy(found["image"]).permute(2, 0, 1), torch.from_numpy(found["mask"])

    return one
