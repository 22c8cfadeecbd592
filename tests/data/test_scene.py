"""Generated scenes are what docs/shapes.md says."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from idd_seg.data.pipeline.source import Item
from idd_seg.data.scene import (
    CLASSES,
    IGNORE,
    Canvas,
    draw_scene,
    grain,
    paint_disc,
    paint_grain,
    paint_hatch,
    paint_square,
)
from idd_seg.data.shapes import ShapesSource
from idd_seg.errors import ConfigError

LAMP, BUOY, WEST, EAST, WIRE, SPARK = range(5, 11)
TWINS = [(1, 2), (3, 4), (LAMP, BUOY), (WEST, EAST)]


@pytest.fixture(scope="module")
def scenes() -> list[Item]:
    source = ShapesSource(0, "train", 600, (64, 96))
    return [source[i] for i in range(len(source))]


def same(a: Item, b: Item) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)


def painted(painter: Callable[[Canvas], None], number: int, size: tuple[int, int] = (128, 128)) -> list[Canvas]:
    """Paint an object alone on black, many times; those that were skipped are left out."""
    canvases = [Canvas(np.random.default_rng(i), *size) for i in range(number)]
    for canvas in canvases:
        painter(canvas)
    return [canvas for canvas in canvases if canvas.label.any()]


def test_a_scene_is_the_same_whenever_it_is_asked_for() -> None:
    source, again = (ShapesSource(3, "val", 4, (40, 56)) for _ in range(2))
    first = [source[i] for i in range(4)]
    assert all(same(first[i], again[i]) for i in (2, 0, 3, 1))
    assert first[2].name == "shapes:3/val/2"


@pytest.mark.parametrize(("seed", "split", "index"), [(4, "val", 1), (3, "train", 1), (3, "test", 1), (3, "val", 0)])
def test_another_seed_split_or_index_gives_another_scene(seed: int, split: str, index: int) -> None:
    one, other = ShapesSource(3, "val", 4, (40, 56))[1], ShapesSource(seed, split, 4, (40, 56))[index]
    assert not np.array_equal(one.image, other.image)
    assert not np.array_equal(one.label, other.label)


def test_the_number_of_scenes_changes_none() -> None:
    assert same(ShapesSource(0, "train", 2, (32, 32))[1], ShapesSource(0, "train", 200, (32, 32))[1])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (32, 301), (255, 34), (128, 128)])
def test_scenes_of_any_size_hold_classes_and_ignored_pixels_alone(height: int, width: int) -> None:
    for seed in range(20):
        image, label = draw_scene(np.random.default_rng(seed), height, width)
        assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
        assert (label.shape, label.dtype) == ((height, width), np.uint8)
        assert set(np.unique(label)) <= {*range(len(CLASSES)), IGNORE}
        assert image.std() > 3


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (0, 0)])
def test_a_scene_too_small_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"data\.size.*at least 32.*" + str(size[0])):
        ShapesSource(0, "train", 1, size)


def test_no_scenes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.val_length must be a whole number from 1 to 2147483647, got '0'"):
        ShapesSource(0, "val", 0, (64, 64))


def test_a_source_ends() -> None:
    source = ShapesSource(0, "train", 3, (32, 32))
    with pytest.raises(IndexError):
        source[3]


def test_every_class_occurs_and_spark_is_rare(scenes: list[Item]) -> None:
    counts = np.bincount(np.concatenate([scene.label.ravel() for scene in scenes]), minlength=256)
    share = counts / counts.sum()
    assert (share[:SPARK] > 0.005).all()
    assert 0 < share[IGNORE] < 0.05
    assert 0 < share[SPARK] < 0.005
    with_spark = np.mean([(scene.label == SPARK).any() for scene in scenes])
    # One scene in three; a few sparks lie hidden under other objects.
    assert 0.23 < with_spark < 0.36


@pytest.mark.parametrize("side", [64, 128, 256])
def test_wire_is_thin(side: int) -> None:
    left = total = 0
    across = 2 * max(1, round(0.014 * side)) + 1  # no wire holds a square of twice its thickness
    for seed in range(20):
        wire = (draw_scene(np.random.default_rng(seed), side, side)[1] == WIRE).astype(np.uint8)
        left += cv2.erode(wire, np.ones((across, across), np.uint8), borderValue=0).sum()
        total += wire.sum()
    assert total > 0
    assert left < 0.01 * total


@pytest.mark.parametrize(
    ("painter", "before", "behind", "axis"), [(paint_disc, LAMP, BUOY, 0), (paint_square, WEST, EAST, 1)]
)
@pytest.mark.parametrize("size", [(128, 128), (45, 90), (90, 45)])
def test_the_class_says_on_which_side_of_the_middle_the_centre_is(
    painter: Callable[[Canvas], None], before: int, behind: int, axis: int, size: tuple[int, int]
) -> None:
    seen = set()
    for canvas in painted(painter, 200, size):
        centre = np.argwhere(canvas.label)[:, axis].mean() + 0.5
        found = canvas.label.max()
        assert found == (before if centre < size[axis] / 2 else behind)
        seen.add(found)
    assert seen == {before, behind}


def test_in_whole_scenes_too_position_tells_the_twins_apart(scenes: list[Item]) -> None:
    height, width = scenes[0].label.shape
    reach = 0.1 * min(height, width) + 1  # beyond an object's centre, which is at least 5 % off the middle
    for label in (scene.label for scene in scenes):
        for class_id, axis, side, length in (
            (LAMP, 0, -1, height),
            (BUOY, 0, 1, height),
            (WEST, 1, -1, width),
            (EAST, 1, 1, width),
        ):
            places = np.argwhere(label == class_id)[:, axis] + 0.5
            assert (side * (places - length / 2) > 0.05 * length - reach - 1).all()


@pytest.mark.parametrize("twins", TWINS)
def test_twins_have_the_same_mean_colour(scenes: list[Item], twins: tuple[int, int]) -> None:
    # One mean a scene: scenes, not pixels, are what is independent.
    means = [
        np.stack([s.image[s.label == twin].mean(0) for s in scenes if (s.label == twin).sum() > 20]) for twin in twins
    ]
    error = np.sqrt(sum(m.var(0) / len(m) for m in means))
    difference = np.abs(means[0].mean(0) - means[1].mean(0))
    assert (difference < 6).all()
    assert (difference < 3.5 * error).all()


@pytest.mark.parametrize("side", [32, 64, 128, 256])
@pytest.mark.parametrize("speck", [0.0065, 0.0125])
def test_grain_has_the_same_contrast_at_every_size(side: int, speck: float) -> None:
    assert grain(side, side, speck * side, 26).std() == pytest.approx(26, rel=0.06)


def test_fine_grain_changes_faster_than_coarse_grain() -> None:
    steps: dict[int, list[float]] = {1: [], 2: []}
    for canvas in painted(paint_grain, 60):
        inside = cv2.erode((canvas.label > 0).astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
        if inside.sum() > 200:
            steps[int(canvas.label.max())].append(float(np.abs(np.diff(canvas.texture, axis=1))[inside[:, 1:]].mean()))
    assert min(steps[1]) > max(steps[2])


def test_stripes_lean_to_the_side_that_the_class_names() -> None:
    lean: dict[int, list[float]] = {3: [], 4: []}
    for canvas in painted(paint_hatch, 60):
        inside = cv2.erode((canvas.label > 0).astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0) > 0
        gy, gx = np.gradient(canvas.texture)
        # Stripes run across the gradient: upwards to the right where its parts have one sign.
        lean[int(canvas.label.max())].append(float((gx * gy)[inside].mean()))
    assert max(lean[4]) < 0 < min(lean[3])
