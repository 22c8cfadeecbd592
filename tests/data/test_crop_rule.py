"""Crops that one class fills are drawn again; and samples are the same to the bit with 0, 2 and 8 workers."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
import pytest
import torch

from idd_seg.data.augment import TRIES, Augmentation, Window
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.dataset import EpochSampler, Sample
from idd_seg.data.pipeline.source import Item
from idd_seg.types import Batch
from tests.data.sources import OneSource, settings

HEIGHT, WIDTH = 90, 140
CROP = (30, 40)
IGNORE = 255


class Island:
    """Class 0 everywhere but for a block of class 1; red is the column, green the row; what is ignored as asked."""

    def __init__(self, ignored: str = "nothing", length: int = 40) -> None:
        self.ignored, self.length = ignored, length

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"island/{index}"

    def key(self, index: int) -> str:
        return f"{self.name(index)}/{self.ignored}"

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(index)
        row, column = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        label[30:60, 40:100] = 1
        if self.ignored == "left half":
            label[:, : WIDTH // 2] = IGNORE
        if self.ignored == "all":
            label[:] = IGNORE
        return Item(np.stack([column, row, row], -1), label, self.name(index))


def module(source: Island, workers: int = 0, seed: int = 0, **augment: Any) -> OneSource:
    options = {"crop": CROP, "scale": (0.8, 1.25), "flip": 0.5, **augment}
    return OneSource(
        source, **settings(2, augment=Augmentation(**options), num_workers=workers, seed=seed, batch_size=4)
    )


def samples(data: SegmentationDataModule, epochs: int = 3) -> list[Sample]:
    dataset = data.dataset("train")
    return [dataset[epoch, i] for epoch in range(epochs) for i in range(len(dataset))]


def largest_share(sample: Sample) -> float:
    """Return what part of the labelled pixels has the commonest class."""
    counts = np.bincount(sample.label[sample.label != IGNORE].numpy(), minlength=2)
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


@pytest.mark.parametrize("ignored", ["nothing", "left half"])
@pytest.mark.parametrize("ratio", [0.75, 0.9])
def test_crops_that_one_class_fills_become_rare(ignored: str, ratio: float) -> None:
    free = np.array([largest_share(s) for s in samples(module(Island(ignored)))])
    ruled = np.array([largest_share(s) for s in samples(module(Island(ignored), cat_max_ratio=ratio))])
    # A little more than the ratio: the rule looks at the pixels of the file, the crop shows them scaled.
    before, after = (free > ratio + 0.05).mean(), (ruled > ratio + 0.05).mean()
    assert before > 0.15
    assert after < before / 8


def test_a_ratio_of_one_changes_nothing() -> None:
    plain, ruled = samples(module(Island())), samples(module(Island(), cat_max_ratio=1.0))
    assert all(torch.equal(a.image, b.image) and torch.equal(a.box, b.box) for a, b in zip(plain, ruled, strict=True))


def test_without_labelled_pixels_some_crop_is_taken() -> None:
    for sample in samples(module(Island("all", length=4), cat_max_ratio=0.5)):
        assert sample.image.shape == (3, *CROP)
        assert (sample.label == IGNORE).all()


def test_the_rule_asks_about_the_window_that_is_taken() -> None:
    asked: list[Window] = []

    def share(window: Window) -> float:
        asked.append(window)
        return 0.0 if len(asked) == 4 else 1.0

    augmentation = Augmentation(crop=CROP, scale=(0.5, 2.0), flip=0.5, cat_max_ratio=0.75)
    window = augmentation.window(np.random.default_rng(0), HEIGHT, WIDTH, 1.0, share)
    assert len(asked) == 4
    assert window == asked[-1]
    # Size, scale and mirroring stay; the place alone is drawn again.
    assert len({w._replace(top=0, left=0) for w in asked}) == 1
    assert len(set(asked)) > 1


def test_the_last_crop_is_taken_if_none_will_do() -> None:
    asked: list[Window] = []

    def share(window: Window) -> float:
        asked.append(window)
        return 1.0

    augmentation = Augmentation(crop=CROP, cat_max_ratio=0.75)
    window = augmentation.window(np.random.default_rng(0), HEIGHT, WIDTH, 1.0, share)
    assert len(asked) == TRIES
    assert window == asked[-1]


def test_the_share_is_that_of_the_window() -> None:
    dataset = module(Island()).dataset("train")
    label = Island()[0].label
    assert label is not None
    for top, left, height, width in (
        (0, 0, 30, 40),
        (25, 30, 30, 40),
        (30, 40, 30, 60),
        (80, 130, 30, 40),
        (0, 0, 90, 140),
    ):
        part = label[top : top + height, left : left + width]
        expected = np.bincount(part.ravel()).max() / part.size
        found = dataset._largest_share(label, "x", Window(top, left, height, width, *CROP, False))
        assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
def test_the_box_of_a_crop_that_was_drawn_again_is_right(image_scale: float) -> None:
    options = {"crop": CROP, "scale": (0.8, 1.25), "flip": 0.5, "cat_max_ratio": 0.6}
    augment = Augmentation(**options)
    data = OneSource(Island(), **settings(2, augment=augment, image_scale=image_scale))
    checked = 0
    for sample in samples(data, 1):
        left, top, right, bottom = sample.box.double().tolist()
        x = (left + (np.arange(CROP[1]) + 0.5) / CROP[1] * (right - left)) * WIDTH - 0.5
        y = (top + (np.arange(CROP[0]) + 0.5) / CROP[0] * (bottom - top)) * HEIGHT - 0.5
        columns, rows = np.meshgrid(x, y)
        shown = (sample.label != IGNORE).numpy()
        step = max(1.0, (bottom - top) * HEIGHT / CROP[0])
        assert np.abs(sample.image[0].numpy() - columns)[shown].max() <= step + 0.5
        assert np.abs(sample.image[1].numpy() - rows)[shown].max() <= step + 0.5
        # And the class is the one that stands there, but for a pixel at its borders.
        inside = (columns > 41) & (columns < 98) & (rows > 31) & (rows < 58)
        outside = (columns < 38) | (columns > 101) | (rows < 28) | (rows > 61)
        assert (sample.label.numpy()[inside & shown] == 1).all()
        assert (sample.label.numpy()[outside & shown] == 0).all()
        checked += int(inside.any() and outside.any())
    assert checked > 20


# Padding


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_photometric_transforms_leave_the_padding_alone(flip: float) -> None:
    transforms = [
        albumentations.InvertImg(p=1),
        albumentations.ColorJitter(brightness=(1.5, 2.0), hue=(-0.5, 0.5), p=1),
        albumentations.GaussianBlur(p=1),
        albumentations.GaussNoise(p=1),
    ]
    data = module(Island(), photometric=transforms, crop=(120, 200), scale=(0.5, 1.0), flip=flip)
    fill = np.array([round(255 * m) for m in (0.485, 0.456, 0.406)])[:, None, None]
    for sample in samples(data, 1)[:10]:
        height, width = round(HEIGHT * 120 / _rows(sample)), round(WIDTH * 200 / _columns(sample))
        padding = np.ones((120, 200), bool)
        padding[:height, :width] = False
        if flip:
            padding = padding[:, ::-1]
        assert padding.mean() > 0.4
        assert (sample.label.numpy()[padding] == IGNORE).all()
        assert (sample.label.numpy()[~padding] != IGNORE).all()
        filled = (sample.image.numpy() == fill).all(0)
        assert filled[padding].all()
        assert not filled[~padding].all()


def _rows(sample: Sample) -> float:
    """Rows of the photograph that the box spans."""
    return float(sample.box[3] - sample.box[1]) * HEIGHT


def _columns(sample: Sample) -> float:
    return float(abs(sample.box[2] - sample.box[0])) * WIDTH


# Workers and ranks


def epochs(data: SegmentationDataModule, number: int = 2) -> list[Batch]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(number):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [2, 8])
def test_workers_change_no_bit_with_the_crop_rule_and_colours(workers: int) -> None:
    options = {
        "cat_max_ratio": 0.75,
        "photometric": [albumentations.ColorJitter(p=0.5), albumentations.GaussNoise(p=0.5)],
    }
    alone, helped = epochs(module(Island(), **options)), epochs(module(Island(), workers, **options))
    assert len(alone) == len(helped) == 20
    for a, b in zip(alone, helped, strict=True):
        assert a.names == b.names
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
        assert torch.equal(a.box, b.box)


@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_sees_the_samples_of_the_whole_and_no_others(world: int) -> None:
    data = module(Island(), cat_max_ratio=0.75, photometric=[albumentations.ColorJitter(p=0.5)])
    dataset = data.dataset("train")
    whole = EpochSampler(len(dataset), data.seed, shuffle=True)
    whole.set_epoch(4)
    order = list(whole)
    shares = []
    for rank in range(world):
        sampler = EpochSampler(len(dataset), data.seed, shuffle=True, rank=rank, world=world)
        sampler.set_epoch(4)
        shares.append(list(sampler))
    # Step by step the ranks' samples together are those that one process would have had.
    together = [key for step in zip(*shares, strict=True) for key in step]
    assert together == order[: len(together)]
    a, b = dataset[shares[1][0]], dataset[order[1]]
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.box, b.box)
