"""Pixels against class centres: a value by hand, the literal reference, gradients, labels, widths and grids."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.apd import PixelToCentre, pixel_to_centre
from tests.losses.reference import log_softmax
from tests.losses.scenes import is_zero_with_gradient, random_features, random_labels


def unit(v: list[float]) -> list[float]:
    length = math.hypot(*v)
    return [x / length for x in v]


def similarities(x: Tensor, classes: dict[tuple[int, int, int], int]) -> dict[tuple[int, int, int], list[float]]:
    """Cosines of each pixel to the centres of the classes that there are, in the order of their ids."""
    units = {place: unit(x[place[0], :, place[1], place[2]].tolist()) for place in classes}
    centres = []
    for k in sorted(set(classes.values())):
        own = [units[place] for place, label in classes.items() if label == k]
        centres.append(unit([sum(values) for values in zip(*own, strict=True)]))
    return {place: [sum(a * b for a, b in zip(u, c, strict=True)) for c in centres] for place, u in units.items()}


def reference(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, temperature: float) -> float:
    n, _, h, w = student.shape
    height, width = labels.shape[1:]
    places = [(i, y, x) for i in range(n) for y in range(h) for x in range(w)]
    read = {(i, y, x): int(labels[i, y * height // h, x * width // w]) for i, y, x in places}
    classes = {place: k for place, k in read.items() if 0 <= k < num_classes}
    ours, theirs = similarities(student, classes), similarities(teacher, classes)
    losses = []
    for place in classes:
        log_s, log_t = (log_softmax([v / temperature for v in side[place]]) for side in (ours, theirs))
        losses.append(sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True)))
    return sum(losses) / len(losses) if losses else 0.0


def test_value_by_hand() -> None:
    # Two pixels of two classes are their own centres. Cosines of the student 1 and 0.6, of the teacher 1 and 0.
    student = torch.tensor([[3.0, 2.0], [4.0, 0.0]]).reshape(1, 2, 1, 2)
    teacher = torch.tensor([[0.0, 5.0], [1.0, 0.0]]).reshape(1, 2, 1, 2)
    loss = pixel_to_centre(student, teacher, torch.tensor([[[0, 1]]]), 2, temperature=0.5)
    log_s, log_t = log_softmax([2.0, 1.2]), log_softmax([2.0, 0.0])
    assert loss.item() == pytest.approx(sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    num_classes=st.sampled_from([1, 2, 4, 40]),
    temperature=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int, grid: tuple[int, int], num_classes: int, temperature: float, seed: int
) -> None:
    student, teacher = random_features(images, 3, *grid, seed=seed), random_features(images, 5, *grid, seed=seed + 1)
    labels = random_labels(images, 2 * grid[0], 3 * grid[1], num_classes=num_classes, seed=seed, stray=(255, 41, -1))
    loss = pixel_to_centre(student, teacher, labels, num_classes, temperature=temperature)
    expected = reference(student, teacher, labels, num_classes, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_equals_finite_differences(layout: torch.memory_format) -> None:
    student = random_features(2, 3, 3, 2).to(memory_format=layout).requires_grad_()
    teacher, labels = random_features(2, 2, 2, 2, seed=1), random_labels(2, 6, 4, num_classes=4)
    assert torch.autograd.gradcheck(lambda x: pixel_to_centre(x, teacher, labels, 4), student)


def test_the_lengths_of_features_do_not_matter() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    labels, factors = random_labels(2, 4, 4, num_classes=3), random_features(2, 1, 4, 4, seed=2).exp()
    found = pixel_to_centre(factors * student, 5 * teacher, labels, 3)
    torch.testing.assert_close(found, pixel_to_centre(student, teacher, labels, 3))


def test_ignored_pixels_take_no_part_and_are_not_counted() -> None:
    student, teacher = random_features(1, 3, 2, 6), random_features(1, 3, 2, 6, seed=1)
    labels = random_labels(1, 2, 6, num_classes=3, stray=(0,))
    labels[..., 4:] = 255
    cut = pixel_to_centre(student[..., :4], teacher[..., :4], labels[..., :4], 3)
    torch.testing.assert_close(pixel_to_centre(student, teacher, labels, 3), cut)


@pytest.mark.parametrize("only", [0, 255])
def test_fewer_than_two_classes_cost_exactly_zero(only: int) -> None:
    student, labels = random_features(2, 3, 2, 2).requires_grad_(), torch.full((2, 4, 4), only)
    assert is_zero_with_gradient(pixel_to_centre(student, random_features(2, 3, 2, 2, seed=1), labels, 3), student)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        PixelToCentre(3, temperature=temperature)


def test_it_reads_classes() -> None:
    assert PixelToCentre(3).label_use == "classes"
