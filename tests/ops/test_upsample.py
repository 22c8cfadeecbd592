"""Class ids from coarse logits, against one pixel after the other in float64."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from idd_seg.ops import upsample
from idd_seg.ops.upsample import BLOCK, Patch, View, class_chunks, mean_logits, predict, whole_view

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]


def at_pixel(logits: Array, box: Box, row: int, column: int) -> Array | None:
    """Return the logits (N, K) at a pixel's centre; None where it lies outside of the box."""
    values = []
    for pixel, low, high, cells in ((row, box[0], box[2], logits.shape[2]), (column, box[1], box[3], logits.shape[3])):
        centre = pixel + 0.5
        if not low <= centre < high:
            return None
        # A cell's own centre lies half a cell behind its border; beyond the outermost centres nothing changes.
        place = (centre - low) * cells / (high - low) - 0.5
        place = min(max(place, 0.0), cells - 1.0)
        before = min(math.floor(place), cells - 1)
        values.append((before, min(before + 1, cells - 1), place - before))
    (top, bottom, down), (left, right, across) = values
    upper = (1 - across) * logits[:, :, top, left] + across * logits[:, :, top, right]
    lower = (1 - across) * logits[:, :, bottom, left] + across * logits[:, :, bottom, right]
    return (1 - down) * upper + down * lower


def slow_logits(view: View, size: tuple[int, int]) -> Array:
    """Return (N, K, H, W): at each pixel the mean over the patches that hold its centre."""
    patches = [(patch.logits.double().numpy(), patch.box) for patch in view]
    found = np.empty((*patches[0][0].shape[:2], *size))
    for row in range(size[0]):
        for column in range(size[1]):
            here = [at_pixel(logits, box, row, column) for logits, box in patches]
            found[:, :, row, column] = np.mean([values for values in here if values is not None], axis=0)
    return found


def slow_scores(views: list[View], size: tuple[int, int]) -> Array:
    """Return the logits of a single view, or the mean over views of the probabilities."""
    each = [slow_logits(view, size) for view in views]
    if len(each) == 1:
        return each[0]
    powers = [np.exp(logits - logits.max(1, keepdims=True)) for logits in each]
    return np.mean([p / p.sum(1, keepdims=True) for p in powers], axis=0)


def assert_highest(ids: Tensor, scores: Array, slack: float) -> None:
    """Every id's score is the highest, as far as rounding lets one tell, and mostly it is the very one."""
    assert ids.shape == (scores.shape[0], *scores.shape[2:])
    taken = np.take_along_axis(scores, ids.numpy()[:, None].astype(np.int64), 1)[:, 0]
    assert (scores.max(1) - taken).max() <= slack
    second = np.sort(scores, axis=1)[:, -2] if scores.shape[1] > 1 else np.full_like(taken, -np.inf)
    clear = scores.max(1) - second > slack
    assert np.array_equal(ids.numpy()[clear], scores.argmax(1)[clear])


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def grid_view(
    size: tuple[int, int], windows: tuple[int, int], cells: tuple[int, int], n: int = 2, k: int = 5, **options: Any
) -> View:
    """Return overlapping patches whose borders lie between pixels, and which cover the picture together."""
    patches, seed = [], options.pop("seed", 0)
    for i in range(windows[0]):
        for j in range(windows[1]):
            box = []
            for index, number, length in ((i, windows[0], size[0]), (j, windows[1], size[1])):
                step = length / number
                box.append((max(0.0, (index - 0.37) * step), min(float(length), (index + 1.41) * step)))
            seed += 1
            logits = random(n, k, *cells, seed=seed, **options)
            patches.append(Patch(logits, (box[0][0], box[1][0], box[0][1], box[1][1])))
    return patches


CASES: dict[str, tuple[list[View], tuple[int, int]]] = {
    "whole": ([whole_view(random(2, 5, 4, 6), (13, 21))], (13, 21)),
    "whole, larger than the picture": ([whole_view(random(1, 4, 30, 40), (13, 21))], (13, 21)),
    "whole, of its size": ([whole_view(random(1, 4, 13, 21), (13, 21))], (13, 21)),
    "one cell": ([whole_view(random(2, 5, 1, 1), (5, 7))], (5, 7)),
    "one row of cells": ([whole_view(random(2, 5, 1, 6), (9, 20))], (9, 20)),
    "one pixel": ([whole_view(random(3, 5, 4, 6), (1, 1))], (1, 1)),
    "one class": ([whole_view(random(2, 1, 3, 4), (7, 9))], (7, 9)),
    "windows": ([grid_view((23, 17), (2, 2), (4, 3))], (23, 17)),
    "many windows": ([grid_view((29, 31), (3, 4), (3, 5))], (29, 31)),
    "windows of one cell": ([grid_view((11, 10), (2, 3), (1, 1))], (11, 10)),
    "views": ([whole_view(random(2, 5, h, w, seed=h), (13, 21)) for h, w in ((4, 6), (3, 5), (8, 13))], (13, 21)),
    "views of windows": ([grid_view((19, 14), (2, 1), (5, 4), seed=s) for s in (0, 10)], (19, 14)),
    "views, whole and windows": (
        [grid_view((19, 14), (2, 2), (5, 4)), whole_view(random(2, 5, 3, 3, seed=9), (19, 14))],
        (19, 14),
    ),
}


@pytest.fixture(params=["as it is", "a row", "three rows"])
def height_of_bands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures in bands of few rows, as large ones have many."""
    numbers = {"a row": (1, 1), "three rows": (3 * 21, 3 * 21 * 5)}
    if request.param in numbers:
        plane, block = numbers[request.param]
        monkeypatch.setattr(upsample, "PLANE", plane)
        monkeypatch.setattr(upsample, "BLOCK", block)


@pytest.mark.usefixtures("height_of_bands")
@pytest.mark.parametrize("name", CASES)
def test_ids_are_the_highest_of_one_pixel_after_the_other(name: str) -> None:
    views, size = CASES[name]
    assert_highest(predict(views, size), slow_scores(views, size), slack=1e-5)


@pytest.mark.usefixtures("height_of_bands")
@pytest.mark.parametrize("name", CASES)
def test_bands_follow_each_other_without_gap(name: str) -> None:
    views, size = CASES[name]
    below = 0
    for top, ids in class_chunks(views, size):
        assert top == below
        assert ids.shape[0] == views[0][0].logits.shape[0]
        assert ids.shape[2] == size[1]
        below += ids.shape[1]
    assert below == size[0]
    assert predict(views, size).dtype == torch.int64


@pytest.mark.parametrize("name", [name for name, (views, _) in CASES.items() if len(views) == 1])
def test_logits_are_those_of_one_pixel_after_the_other(name: str) -> None:
    (view,), size = CASES[name]
    np.testing.assert_allclose(mean_logits(view, size).numpy(), slow_logits(view, size), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_float64_stays_float64(name: str) -> None:
    views, size = CASES[name]
    wide = [
        [Patch(p.logits.double() + 1e-9 * random(*p.logits.shape, dtype=torch.float64), p.box) for p in v]
        for v in views
    ]
    assert_highest(predict(wide, size), slow_scores(wide, size), slack=1e-13)
    if len(wide) == 1:
        found = mean_logits(wide[0], size)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), slow_logits(wide[0], size), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    views, size = CASES[name]
    narrow = [[Patch(p.logits.to(dtype), p.box) for p in view] for view in views]
    # The reference sees the same rounded logits, so no more than float32's own rounding may remain.
    assert_highest(predict(narrow, size), slow_scores(narrow, size), slack=1e-5)
    if len(narrow) == 1:
        assert mean_logits(narrow[0], size).dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 21, 255, 256, 257, 300])
@pytest.mark.parametrize("kind", ["whole", "windows", "views"])
def test_many_classes(classes: int, kind: str) -> None:
    size = (9, 12)
    views: list[View] = [whole_view(random(1, classes, 3, 4), size)]
    if kind == "windows":
        views = [grid_view(size, (2, 2), (3, 3), n=1, k=classes)]
    if kind == "views":
        views.append(whole_view(random(1, classes, 2, 3, seed=1), size))
    ids = predict(views, size)
    assert_highest(ids, slow_scores(views, size), slack=1e-5)
    # The highest class is found where it alone stands out.
    for view in views:
        for patch in view:
            patch.logits[:, -1] += 50
    assert (predict(views, size) == classes - 1).all()


@given(
    n=st.integers(1, 3),
    k=st.integers(1, 6),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    windows=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    views=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_shape(
    n: int, k: int, cells: tuple[int, int], size: tuple[int, int], windows: tuple[int, int], views: int, seed: int
) -> None:
    made = [grid_view(size, windows, cells, n, k, seed=seed + 100 * i, dtype=torch.float64) for i in range(views)]
    assert_highest(predict(made, size), slow_scores(made, size), slack=1e-12)


@given(
    cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_whole_picture_is_that_of_interpolate(cells: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    logits = random(2, 7, *cells, seed=seed, dtype=torch.float64)
    large = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(mean_logits(whole_view(logits, size), size), large, rtol=0, atol=1e-12)
    assert torch.equal(predict([whole_view(logits, size)], size), large.argmax(1))


def test_a_large_picture_is_that_of_interpolate() -> None:
    logits = random(2, 19, 65, 129)
    size = (513, 1025)
    # In float64: interpolate itself rounds the places of pixels to float32.
    large = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=False)
    assert_highest(predict([whole_view(logits, size)], size), large.numpy(), slack=1e-5)
    bands_of_it = list(class_chunks([whole_view(logits, size)], size))
    assert len(bands_of_it) > 1


# Ties


@pytest.mark.parametrize("kind", ["whole", "windows", "views"])
def test_of_equal_scores_the_lowest_class_wins(kind: str) -> None:
    size = (11, 14)
    base = random(2, 3, 4, 5)
    # Classes 0 and 3, 1 and 4, 2 and 5 are equal everywhere.
    doubled = torch.cat([base, base], 1)
    views: list[View] = [whole_view(doubled, size)]
    if kind == "windows":
        views = [[*views[0], Patch(doubled[..., :3, :3].clone(), (0.0, 0.0, 6.3, 7.2))]]
    if kind == "views":
        views.append(whole_view(doubled.flip(-1), size))
    ids = predict(views, size)
    assert ids.max() == 2
    assert len(ids.unique()) == 3


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30, -1e30])
def test_where_all_are_equal_the_first_class_wins(value: float) -> None:
    for views in (
        [whole_view(torch.full((1, 6, 3, 3), value), (7, 8))],
        [whole_view(torch.full((1, 6, 2, 2), value), (7, 8))] * 2,
    ):
        assert (predict(views, (7, 8)) == 0).all()


# Inputs


def test_logits_are_left_alone() -> None:
    for views, size in CASES.values():
        before = [patch.logits.clone() for view in views for patch in view]
        predict(views, size)
        after = [patch.logits for view in views for patch in view]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_layout_in_memory_changes_nothing() -> None:
    logits, size = random(2, 5, 4, 6), (13, 21)
    expected = predict([whole_view(logits, size)], size)
    for other in (
        logits.contiguous(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat([logits, logits], 1)[:, :5],
        logits.flip(-1).contiguous().flip(-1),
    ):
        assert torch.equal(predict([whole_view(other, size)], size), expected)


def test_images_do_not_meet() -> None:
    views, size = CASES["views of windows"]
    swapped = [[Patch(p.logits.flip(0), p.box) for p in view] for view in views]
    assert torch.equal(predict(swapped, size), predict(views, size).flip(0))


# Memory


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes; views of what there is are none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.operation = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tensors(args)}
        for tensor in tensors(made if isinstance(made, (tuple, list)) else (made,)):
            if tensor.untyped_storage().data_ptr() not in given and tensor.numel() > self.numbers:
                self.numbers, self.operation = tensor.numel(), str(func)
        return made


def tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += tensors(value)
    return found


def largest(views: list[View], size: tuple[int, int]) -> tuple[int, str]:
    """Return the largest tensor made for the first bands; all are of one height but the last."""
    with Largest() as seen:
        for _ in islice(class_chunks(views, size), 2):
            pass
    return seen.numbers, seen.operation


def test_the_meter_sees_a_large_tensor() -> None:
    with Largest() as seen:
        F.interpolate(torch.zeros(1, 3, 4, 4), size=(100, 100), mode="bilinear")
    assert seen.numbers == 30_000


def zeros(*shape: int) -> View:
    return whole_view(torch.zeros(shape), WIDE)


WIDE = (1024, 2048)
CROPS = [(float(t), float(x), t + 512.0, x + 512.0) for t in (0, 512) for x in range(0, 2048, 512)]
VIEWS: dict[str, list[View]] = {
    "an eighth": [zeros(1, 150, 128, 256)],
    "a thirty-second": [zeros(1, 150, 32, 64)],
    "two scales": [zeros(1, 150, h, 2 * h) for h in (64, 128)],
    "windows": [[Patch(torch.zeros(1, 150, 64, 64), box) for box in CROPS]],
}
WIDER: dict[str, list[View]] = {
    "a quarter": [zeros(1, 150, 256, 512)],
    "half": [zeros(1, 80, 512, 1024)],
    "many images": [zeros(16, 150, 32, 64)],
    "many classes": [zeros(1, 1000, 32, 64)],
}


@pytest.mark.parametrize("name", VIEWS)
def test_no_tensor_is_larger_than_a_block(name: str) -> None:
    numbers, operation = largest(VIEWS[name], WIDE)
    assert numbers <= 1.1 * BLOCK, operation  # a few rows of cells more


@pytest.mark.parametrize("name", WIDER)
def test_nor_for_fine_logits_many_images_or_many_classes(name: str) -> None:
    numbers, operation = largest(WIDER[name], WIDE)
    assert numbers <= 1.1 * BLOCK, operation
