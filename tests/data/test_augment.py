"""Geometry: every pixel of a sample is where its box says, in the image and in the label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from idd_seg.data.augment import Augmentation
from idd_seg.data.pipeline.dataset import Sample, SegmentationDataset
from idd_seg.data.pipeline.labels import LabelMap
from idd_seg.errors import ConfigError
from tests.data.sources import Coordinates

HEIGHT, WIDTH = 97, 141
FILL = (7, 8, 9)

AUGMENTATIONS: list[dict[str, Any]] = [
    {"scale": (0.5, 2.0), "flip": 0.5},
    {"scale": (0.5, 2.0), "flip": 0.5, "crop": (64, 64)},
    {"scale": (0.4, 3.0), "flip": 0.5, "crop": (33, 50)},
    {"scale": (0.5, 2.0), "flip": 0.5, "crop": (200, 180)},  # beyond the photograph
    {"crop": (50, 190)},  # beyond it in one direction
    {"scale": (2.0, 2.0)},
    {"scale": (0.5, 0.5), "flip": 1.0},
]


def dataset(augmentation: Augmentation | None, image_scale: float = 1.0, label: str = "column") -> SegmentationDataset:
    source = Coordinates(HEIGHT, WIDTH, label=label)
    return SegmentationDataset(
        source, LabelMap(200, 255), 255, 0, image_scale=image_scale, augmentation=augmentation, fill=FILL
    )


def samples(augment: dict[str, Any], image_scale: float = 1.0, label: str = "column") -> Iterator[Sample]:
    data = dataset(Augmentation(**augment), image_scale, label)
    return (data[epoch, index] for epoch in range(5) for index in range(8))


def origin(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the column and the row in the photograph of each pixel's centre, and a pixel's size there."""
    left, top, right, bottom = sample.box.double().tolist()
    height, width = sample.image.shape[-2:]
    x = (left + (np.arange(width) + 0.5) / width * (right - left)) * WIDTH - 0.5
    y = (top + (np.arange(height) + 0.5) / height * (bottom - top)) * HEIGHT - 0.5
    columns, rows = np.meshgrid(x, y)
    return columns, rows, max(abs(right - left) * WIDTH / width, (bottom - top) * HEIGHT / height)


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=str)
def test_the_box_leads_back_to_the_photograph(augment: dict[str, Any], image_scale: float) -> None:
    for sample in samples(augment, image_scale):
        columns, rows, step = origin(sample)
        shown = (sample.label != 255).numpy()
        assert shown.any()
        red, green = sample.image[:2].numpy().astype(float)
        # One pixel, of the photograph or of the picture, whichever is larger; colours are rounded to whole values.
        assert np.abs(red - columns)[shown].max() <= max(1, step) + 0.5
        assert np.abs(green - rows)[shown].max() <= max(1, step) + 0.5


@pytest.mark.parametrize("label", ["column", "row"])
@pytest.mark.parametrize("image_scale", [1.0, 0.5])
@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=str)
def test_image_and_label_stay_aligned(augment: dict[str, Any], image_scale: float, label: str) -> None:
    for sample in samples(augment, image_scale, label):
        shown = (sample.label != 255).numpy()
        difference = sample.label.numpy().astype(float) - sample.image[["column", "row"].index(label)].numpy()
        step = origin(sample)[2]
        assert np.abs(difference[shown]).max() <= max(1, step)


@pytest.mark.parametrize("label", ["column", "row"])
@pytest.mark.parametrize("scale", [0.3, 0.5, 0.7, 0.9, 1.0, 1.4, 2.0])
def test_labels_lean_to_no_side(scale: float, label: str) -> None:
    # Both are rounded to whole values, which by itself leaves up to a quarter.
    sample = dataset(Augmentation(scale=(scale, scale)), label=label)[0, 0]
    difference = sample.label.numpy().astype(float) - sample.image[["column", "row"].index(label)].numpy()
    assert abs(difference.mean()) <= 0.3


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_what_lies_beyond_the_photograph_is_filled_and_ignored(flip: float) -> None:
    sample = dataset(Augmentation(crop=(120, 160), flip=flip))[0, 0]
    columns, rows, _ = origin(sample)
    beyond = (columns > WIDTH - 0.5) | (rows > HEIGHT - 0.5)
    assert sample.image.shape == (3, 120, 160)
    assert beyond.mean() == pytest.approx(1 - HEIGHT * WIDTH / (120 * 160))
    assert (sample.label.numpy()[beyond] == 255).all()
    assert (sample.image.numpy()[:, beyond].T == FILL).all()
    assert (sample.label.numpy()[~beyond] != 255).all()
    left, top, right, bottom = sample.box.tolist()
    assert sorted([left, right]) == pytest.approx([0, 160 / WIDTH])
    assert (left > right) == bool(flip)
    assert (top, bottom) == pytest.approx((0, 120 / HEIGHT))


def test_a_crop_reaches_every_part_of_the_photograph() -> None:
    boxes = np.stack([sample.box.numpy() for sample in samples({"crop": (90, 130)})])
    assert boxes.min() == 0
    assert boxes.max() == 1
    assert len(np.unique(boxes[:, 0])) > 6
    assert len(np.unique(boxes[:, 1])) > 4


@pytest.mark.parametrize(("flip", "expected"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
def test_mirroring_exchanges_left_and_right_of_the_box(flip: float, expected: set[bool]) -> None:
    mirrored = set()
    for sample in samples({"flip": flip}):
        left, top, right, bottom = sample.box.tolist()
        assert (top, bottom) == (0, 1)
        mirrored.add(left > right)
        assert (sample.image[0, 0, 0] > sample.image[0, 0, -1]) == (left > right)
    assert mirrored == expected


@pytest.mark.parametrize("image_scale", [0.5, 1.0, 1.5])
def test_held_out_photographs_are_whole_and_their_labels_of_full_size(image_scale: float) -> None:
    sample = dataset(None, image_scale)[3, 1]
    assert sample.image.shape[-2:] == (round(HEIGHT * image_scale), round(WIDTH * image_scale))
    assert sample.label.shape == (HEIGHT, WIDTH)
    assert sample.box.tolist() == [0, 0, 1, 1]
    columns, rows, step = origin(sample)
    assert np.abs(sample.image[0].numpy() - columns).max() <= max(1, step)
    assert np.abs(sample.image[1].numpy() - rows).max() <= max(1, step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": [64]}, r"crop must be .*\[64\]"),
        ({"crop": [0, 64]}, r"crop must be .*\[0, 64\]"),
        ({"scale": [2.0, 0.5]}, r"scale must be .*\[2\.0, 0\.5\]"),
        ({"scale": [0, 1]}, r"scale must be .*\[0, 1\]"),
        ({"scale": [float("nan"), 1]}, r"scale must be .*nan"),
        ({"flip": 1.5}, r"flip is a probability.*1\.5"),
        ({"flip": -0.1}, r"flip is a probability.*-0\.1"),
    ],
)
def test_a_value_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.augment\.{message}"):
        Augmentation(**options)


def of(name: str, **options: Any) -> Any:
    return getattr(albumentations, name)(**options)


MOVING = [
    of("HorizontalFlip"),
    of("Rotate"),
    of("Affine"),
    of("ElasticTransform"),
    of("Resize", height=32, width=32),
    of("RandomCrop", height=32, width=32),
    of("RandomGridShuffle"),
    of("GridDistortion"),
]


@pytest.mark.parametrize("transform", MOVING, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("inside", [None, "OneOf", "Compose", "SomeOf", "Sequential"])
def test_what_moves_pixels_is_no_photometric_transform(transform: Any, inside: str | None) -> None:
    colours, name = of("RandomBrightnessContrast"), type(transform).__name__
    given = [colours, transform]
    if inside is not None:
        given = [of(inside, transforms=given, **({"n": 1} if inside == "SomeOf" else {}))]
    with pytest.raises(ConfigError, match=rf"photometric: {name} moves or resizes pixels.*data\.augment\.scale"):
        Augmentation(photometric=given)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (of("Normalize", p=0.01), "Normalize makes float32 of 48 x 64 x 3"),
        (of("ToFloat"), "ToFloat makes float32"),
        (of("ToTensorV2"), "ToTensorV2 is not one of those that change colours alone"),
        (of("Lambda", image=lambda x, **_: x), "Lambda is not one of those"),
        (of("ToGray", num_output_channels=1), r"ToGray makes uint8 of 48 x 64( x 1)? of a"),
        (of("FDA"), "FDA can't be applied to a photograph"),
        (of("CoarseDropout", fill_mask=3), "CoarseDropout would write into labels.*leave out fill_mask"),
        (torch.nn.Identity(), "takes transforms of albumentations, got Identity"),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else "",
)
def test_what_makes_no_picture_is_no_photometric_transform(transform: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(photometric=[transform])


def test_transforms_of_colours_are_taken_and_keep_pixels_in_place() -> None:
    names = ("ColorJitter", "GaussNoise", "ToGray", "CoarseDropout", "RandomGamma", "ImageCompression", "NoOp")
    chosen = of("OneOf", transforms=[of(name) for name in names], p=1.0)
    sample = dataset(Augmentation(photometric=[chosen, of("CLAHE")]))[0, 0]
    assert sample.image.shape == (3, HEIGHT, WIDTH)
    assert (sample.label.numpy() == np.arange(WIDTH)).all()
