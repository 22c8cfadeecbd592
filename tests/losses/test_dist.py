"""DIST: values by hand, equality with the literal reference, constant rows and ignored pixels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.dist import Dist, correlation, dist
from idd_seg.types import Batch, Outputs
from tests.losses.reference import log_softmax
from tests.losses.scenes import random_features, random_labels


def pearson(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    dx, dy = [v - mean_x for v in x], [v - mean_y for v in y]
    tiny_x = math.hypot(*dx) <= 1e-6 * math.hypot(*x)
    tiny_y = math.hypot(*dy) <= 1e-6 * math.hypot(*y)
    if tiny_x or tiny_y:
        return float(tiny_x and tiny_y)
    return sum(a * b for a, b in zip(dx, dy, strict=True)) / (math.hypot(*dx) * math.hypot(*dy))


def reference(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    beta: float = 1.0,
    gamma: float = 1.0,
    ignore: int = 255,
) -> float:
    n, k, h, w = student.shape
    ours, theirs = [], []
    for image in range(n):
        for i in range(h):
            for j in range(w):
                if labels is not None:
                    _, height, width = labels.shape
                    if labels[image, i * height // h, j * width // w].item() == ignore:
                        continue
                ours.append([math.exp(v) for v in log_softmax(student[image, :, i, j].tolist())])
                theirs.append([math.exp(v) for v in log_softmax(teacher[image, :, i, j].tolist())])
    if not ours:
        return 0.0
    by_pixel = [pearson(s, t) for s, t in zip(ours, theirs, strict=True)]
    by_class = [pearson([p[c] for p in ours], [p[c] for p in theirs]) for c in range(k)]
    return beta * (1 - sum(by_pixel) / len(by_pixel)) + gamma * (1 - sum(by_class) / k)


def pixels(*probabilities: tuple[float, ...]) -> Tensor:
    """Logits (1, K, 1, w) of pixels with these probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None, :]


def test_value_by_hand() -> None:
    # Deviations from 1/3 in thirtieths: (5, -1, -4) and (-4, -1, 5): (-20 + 1 - 20) / (25 + 1 + 16) = -39 / 42.
    # Over one pixel alone every class is constant on both sides, and agrees.
    loss = dist(pixels((0.5, 0.3, 0.2)), pixels((0.2, 0.3, 0.5)))
    assert loss.item() == pytest.approx(1 + 39 / 42, rel=1e-9)


def test_both_parts_by_hand() -> None:
    # Two classes: the first pixel's probabilities fall on both sides (1), the second's rise and fall (-1); mean 0.
    # Class 0 over the two pixels: 0.9, 0.4 falls and 0.8, 0.7 falls: 1; class 1 rises on both: 1.
    student, teacher = pixels((0.9, 0.1), (0.4, 0.6)), pixels((0.8, 0.2), (0.7, 0.3))
    assert dist(student, teacher, beta=1.0, gamma=0.0).item() == pytest.approx(1, rel=1e-9)
    assert dist(student, teacher, beta=0.0, gamma=1.0).item() == pytest.approx(0, abs=1e-12)
    assert dist(student, teacher, beta=3.0, gamma=5.0).item() == pytest.approx(3, rel=1e-9)
    # With the pixels exchanged each class falls where the other side rises.
    swapped = teacher.flip(3)
    assert dist(student, swapped, beta=0.0, gamma=1.0).item() == pytest.approx(2, rel=1e-9)


def test_classes_correlate_over_the_pixels_of_all_images() -> None:
    """And not image by image, nor over the batch at each pixel."""
    student, teacher = random_features(2, 3, 2, 2), random_features(2, 3, 2, 2, seed=1)

    def in_a_row(x: Tensor) -> Tensor:
        return x.permute(1, 0, 2, 3).reshape(1, 3, 1, 8)

    expected = dist(in_a_row(student), in_a_row(teacher))
    torch.testing.assert_close(dist(student, teacher), expected)


def test_linear_probabilities_are_enough() -> None:
    """What sets it apart from divergence: the student may be less sure than the teacher."""
    student = torch.tensor([[0.4, 0.35, 0.25], [0.3, 0.3, 0.4]])
    teacher = (student - 1 / 3) * 2 + 1 / 3
    loss = dist(pixels(*student.tolist()), pixels(*teacher.tolist()))
    assert loss.item() == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factors=st.tuples(st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 1.0, 0.5])),
    labelled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    factors: tuple[float, float],
    labelled: bool,
    seed: int,
) -> None:
    student, teacher = 2 * random_features(*shape, seed=seed), 2 * random_features(*shape, seed=seed + 1)
    labels = random_labels(shape[0], *size, num_classes=shape[1], seed=seed) if labelled else None
    loss = dist(student, teacher, labels, beta=factors[0], gamma=factors[1])
    assert loss.item() == pytest.approx(reference(student, teacher, labels, *factors), rel=1e-8, abs=1e-10)


def test_gradient_equals_finite_differences() -> None:
    labels = random_labels(2, 4, 4, num_classes=3)
    student, teacher = random_features(2, 4, 3, 2).requires_grad_(), random_features(2, 4, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: dist(x, teacher, labels, beta=2.0, gamma=0.5), student)


def test_ignored_pixels_are_in_neither_correlation() -> None:
    student, teacher = random_features(1, 4, 1, 5), random_features(1, 4, 1, 5, seed=1)
    labels = torch.tensor([[[0, 255, 1, 3, 255]]])
    kept = torch.tensor([0, 2, 3])
    expected = dist(student[..., kept], teacher[..., kept])
    student.requires_grad_()
    loss = dist(student, teacher, labels)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert student.grad is not None
    assert not student.grad[..., [1, 4]].any()
    assert student.grad[..., kept].any()


def test_all_ignored_is_zero_with_a_gradient() -> None:
    student = random_features(2, 3, 2, 2).requires_grad_()
    loss = dist(student, random_features(2, 3, 2, 2, seed=1), torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_correlation_of_constant_rows_by_hand() -> None:
    x = torch.tensor([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([[7.0, 7.0, 7.0], [1.0, 2.0, 3.0], [3.0, 3.0, 3.0], [0.0, 1.0, 0.0]])
    rho = correlation(x, y)
    rho.sum().backward()
    assert rho.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_constant_but_for_rounding_are_constant(dtype: torch.dtype) -> None:
    """A uniform student, as with a classifier of zeros: no correlation, and no gradient of noise divided by noise."""
    student = torch.zeros(2, 7, 5, 3, dtype=dtype)
    student[:, :] += random_features(2, 1, 5, 3).to(dtype)
    student.requires_grad_()
    loss = dist(student, random_features(2, 7, 5, 3, seed=1).to(dtype))
    loss.backward()
    assert loss.item() == pytest.approx(2)
    assert student.grad is not None
    assert not student.grad.any()


def test_rare_classes_correlate_as_others_do() -> None:
    """With 1e-8 added to the product of lengths, classes of tiny probability never would."""
    student = random_features(1, 4, 4, 4)
    student[:, 3] -= 25
    single = student.float()
    assert abs(dist(single, single).item()) <= 1e-6
    unlike = single.clone()
    unlike[:, 3] = unlike[:, 3].flip(1)
    assert dist(single, unlike, beta=0.0).item() > 0.1


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_few_and_many_classes(num_classes: int) -> None:
    student, teacher = random_features(2, num_classes, 3, 3), random_features(2, num_classes, 3, 3, seed=1)
    labels = random_labels(2, 6, 6, num_classes=num_classes)
    loss = dist(student.float(), teacher.float(), labels)
    assert loss.item() == pytest.approx(reference(student, teacher, labels), rel=1e-4)


def test_the_term_gives_the_unweighted_loss_over_labelled_pixels() -> None:
    student, teacher = random_features(2, 3, 2, 2), random_features(2, 3, 2, 2, seed=1)
    labels = torch.where(random_labels(2, 4, 4, num_classes=3) == 1, 7, 0)
    batch = Batch(torch.zeros(2, 3, 4, 4), labels, torch.zeros(2, 4), ["a", "b"])
    loss = Dist(weight=5.0, beta=2.0, gamma=3.0, ignore_index=7)(Outputs(student, {}), Outputs(teacher, {}), batch)
    assert loss.item() == pytest.approx(reference(student, teacher, labels, 2.0, 3.0, ignore=7))


@pytest.mark.parametrize("option", ["beta", "gamma"])
@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
def test_bad_factors_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        Dist(**{option: value})
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        dist(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), **{option: value})
