"""Intra-class feature variation: values by hand, equality with the literal reference, ignored pixels, cost."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.ifvd import intra_class_variation
from tests.losses.reference import class_means
from tests.losses.scenes import random_features, random_labels


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def reference(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, ignore: int = 255) -> float:
    n, _, h, w = student.shape
    means_s, _ = class_means(student, labels, num_classes, ignore)
    means_t, _ = class_means(teacher, labels, num_classes, ignore)
    _, height, width = labels.shape
    terms = []
    for image in range(n):
        for i in range(h):
            for j in range(w):
                k = int(labels[image, i * height // h, j * width // w])
                if k == ignore or not 0 <= k < num_classes:
                    continue
                ours = cosine(student[image, :, i, j].tolist(), means_s[image][k])
                theirs = cosine(teacher[image, :, i, j].tolist(), means_t[image][k])
                terms.append((ours - theirs) ** 2)
    return sum(terms) / len(terms) if terms else 0.0


def line(*vectors: tuple[float, ...]) -> Tensor:
    """A feature map of one row with a vector in each cell, (1, C, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


# Student: class 0 has mean (1/2, 1/2), at 45 degrees from either pixel; class 1 is its own mean. Teacher: all 1.
STUDENT = line((1, 0), (0, 1), (3, 4))
TEACHER = line((2, 0), (1, 0), (3, 4))
BY_HAND = 2 * (1 - math.sqrt(0.5)) ** 2 / 3


def test_value_by_hand() -> None:
    loss = intra_class_variation(STUDENT, TEACHER, torch.tensor([[[0, 0, 1]]]), 2)
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)


@pytest.mark.parametrize("stray", [255, 2, 77, -1])
def test_ignored_pixels_are_neither_in_a_mean_nor_counted(stray: int) -> None:
    student = torch.cat([STUDENT, 9 * torch.ones(1, 2, 1, 2)], dim=3).requires_grad_()
    teacher = torch.cat([TEACHER, random_features(1, 2, 1, 2)], dim=3)
    loss = intra_class_variation(student, teacher, torch.tensor([[[0, 0, 1, stray, stray]]]), 2)
    loss.backward()
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)
    assert student.grad is not None
    assert not student.grad[..., 3:].any()


def test_an_ignore_index_inside_the_range_of_classes_is_ignored() -> None:
    labels = torch.tensor([[[1, 1, 0]]])
    loss = intra_class_variation(STUDENT, TEACHER, labels, 2, ignore_index=0)
    assert loss.item() == pytest.approx(BY_HAND * 3 / 2, rel=1e-9)


def test_means_are_of_each_image_alone() -> None:
    # One pixel of the class in each image is its own mean: all cosines are 1.
    student, teacher = random_features(2, 3, 1, 1), random_features(2, 3, 1, 1, seed=1)
    assert intra_class_variation(student, teacher, torch.zeros(2, 1, 1, dtype=torch.long), 1).item() < 1e-20


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    num_classes=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int,
    grid: tuple[int, int],
    size: tuple[int, int],
    widths: tuple[int, int],
    num_classes: int,
    seed: int,
) -> None:
    student, teacher = (random_features(images, width, *grid, seed=seed + i) for i, width in enumerate(widths))
    labels = random_labels(images, *size, num_classes=num_classes, seed=seed, stray=(255, num_classes, -1))
    loss = intra_class_variation(student, teacher, labels, num_classes)
    assert loss.item() == pytest.approx(reference(student, teacher, labels, num_classes), rel=1e-9, abs=1e-14)


def test_gradient_equals_finite_differences() -> None:
    """Through the pixels and through the means."""
    labels = random_labels(2, 6, 6, num_classes=3)
    student, teacher = random_features(2, 3, 3, 4).requires_grad_(), random_features(2, 2, 2, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: intra_class_variation(x, teacher, labels, 3), student)


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_few_and_many_classes(num_classes: int) -> None:
    student, teacher = random_features(2, 4, 6, 6), random_features(2, 4, 6, 6, seed=1)
    used = torch.tensor([0, num_classes - 1])
    labels = random_labels(2, 6, 6, num_classes=2, stray=(-1,))
    labels = torch.where(labels < 0, 255, used[labels.clamp(min=0)])
    loss = intra_class_variation(student.float(), teacher.float(), labels, num_classes)
    assert loss.item() == pytest.approx(reference(student, teacher, labels, num_classes), rel=1e-5)
    assert loss.item() > 0


def test_all_ignored_is_zero_with_a_gradient() -> None:
    student = random_features(2, 3, 2, 2).requires_grad_()
    loss = intra_class_variation(student, random_features(2, 3, 2, 2, seed=1), torch.full((2, 4, 4), 255), 19)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_an_image_without_labels_does_not_count() -> None:
    student, teacher = random_features(2, 3, 3, 3), random_features(2, 3, 3, 3, seed=1)
    labels = random_labels(2, 3, 3, num_classes=2)
    labels[1] = 255
    alone = intra_class_variation(student[:1], teacher[:1], labels[:1], 2)
    torch.testing.assert_close(intra_class_variation(student, teacher, labels, 2), alone)


def test_the_scale_of_features_does_not_matter() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    labels = random_labels(2, 8, 8, num_classes=3)
    expected = intra_class_variation(student, teacher, labels, 3)
    torch.testing.assert_close(intra_class_variation(1e-3 * student, 50 * teacher, labels, 3), expected)


def masks_in_a_loop(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The same loss by a mask of the whole feature map for each class."""
    every_second = labels[:, ::8, ::8]

    def similarity(features: Tensor) -> Tensor:
        mean_of_own = features.clone()
        for k in range(num_classes):
            mask = (every_second == k)[:, None].expand_as(features).float()
            mean = (mask * features).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
            mean_of_own = (1 - mask) * mean_of_own + mask * mean[..., None, None]
        return torch.nn.functional.cosine_similarity(features, mean_of_own, dim=1)

    return (similarity(student) - similarity(teacher)).square().mean()


@pytest.mark.slow
def test_faster_than_a_loop_over_masks() -> None:
    """Measured: 33 times with 19 classes on two cores; asked here: a third of that."""
    labels = random_labels(2, 512, 512, num_classes=19, stray=(0,))
    student, teacher = (random_features(2, 512, 64, 64, seed=i, dtype=torch.float32) for i in range(2))
    seconds, values = [], []
    for loss_of in (intra_class_variation, intra_class_variation, masks_in_a_loop):
        features = student.clone().requires_grad_()
        start = time.perf_counter()
        loss = loss_of(features, teacher, labels, 19)
        loss.backward()
        seconds.append(time.perf_counter() - start)
        values.append(loss.item())
    assert values[1] == pytest.approx(values[2], rel=1e-4)
    assert seconds[1] < seconds[2] / 10
