"""Pixel-wise distillation: values by hand and equality with the literal reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.kd import PixelWise, pixel_wise
from idd_seg.types import Batch, Outputs
from tests.losses import reference
from tests.losses.scenes import descend, random_features, random_labels


def pixel(*logits: float) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64).reshape(1, -1, 1, 1)


# Teacher (1/4, 3/4), student (1/2, 1/2).
BY_HAND = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)


def test_value_by_hand() -> None:
    loss = pixel_wise(pixel(0, 0), pixel(0, math.log(3)))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)
    assert loss.item() == pytest.approx(0.1308, abs=1e-4)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    # The other way round: 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.5 ln 2 - 0.5 ln 1.5.
    loss = pixel_wise(pixel(0, math.log(3)), pixel(0, 0))
    assert loss.item() == pytest.approx(0.5 * math.log(2) - 0.5 * math.log(1.5), rel=1e-9)


def test_temperature_by_hand() -> None:
    # 2 ln 3 at T = 2 is ln 3 at T = 1; the factor is T^2 = 4.
    loss = pixel_wise(pixel(0, 0), pixel(0, 2 * math.log(3)), temperature=2.0)
    assert loss.item() == pytest.approx(4 * BY_HAND, rel=1e-9)


def test_ignored_pixels_are_neither_summed_nor_counted() -> None:
    student, teacher = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
    teacher[0, 1, 0] = torch.tensor([math.log(3), 0.0, 77.0])
    # One pixel of BY_HAND, one of 0, one ignored.
    loss = pixel_wise(student, teacher, torch.tensor([[[0, 1, 255]]]))
    assert loss.item() == pytest.approx(BY_HAND / 2, rel=1e-5)


def test_labels_are_read_nearest_on_the_grid_of_the_student() -> None:
    student, teacher = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    teacher[0, 1, 0] = torch.tensor([math.log(3), 5.0])
    # Columns 0 and floor(5 / 2) = 2 of five are read.
    loss = pixel_wise(student, teacher, torch.tensor([[[0, 255, 255, 0, 0]]]))
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    labelled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    shape: tuple[int, int, int, int], size: tuple[int, int], temperature: float, labelled: bool, seed: int
) -> None:
    student, teacher = 3 * random_features(*shape, seed=seed), 3 * random_features(*shape, seed=seed + 1)
    labels = random_labels(shape[0], *size, num_classes=shape[1], seed=seed) if labelled else None
    expected = reference.pixel_wise(student, teacher, labels, temperature)
    loss = pixel_wise(student, teacher, labels, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_gradient_equals_finite_differences() -> None:
    labels = random_labels(2, 4, 4, num_classes=3)
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: pixel_wise(x, teacher, labels, temperature=2.0), student)


def test_descent_lowers_the_loss() -> None:
    student, teacher = random_features(2, 3, 4, 4).requires_grad_(), random_features(2, 3, 4, 4, seed=1)
    losses = descend(student, lambda x: pixel_wise(x, teacher))
    assert losses[-1] < 0.3 * losses[0]


def test_zero_for_identical_logits_and_for_shifted_ones() -> None:
    logits = random_features(2, 3, 2, 2)
    assert pixel_wise(logits, logits).item() == pytest.approx(0, abs=1e-12)
    assert pixel_wise(logits + 9, logits).item() == pytest.approx(0, abs=1e-12)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = random_features(1, 3, 2, 2).requires_grad_(), random_features(1, 3, 2, 2, seed=1)
    teacher.requires_grad_()
    pixel_wise(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


def test_all_ignored_is_zero_with_a_gradient() -> None:
    student = random_features(2, 3, 2, 2).requires_grad_()
    loss = pixel_wise(student, random_features(2, 3, 2, 2, seed=1), torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_few_and_many_classes(num_classes: int) -> None:
    student, teacher = random_features(1, num_classes, 1, 1), random_features(1, num_classes, 1, 1, seed=1)
    expected = reference.pixel_wise(student, teacher)
    assert pixel_wise(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_far_logits_do_not_underflow() -> None:
    # The teacher is sure of class 0, the student of class 1 by 2000: the divergence is 2000.
    student = torch.tensor([0.0, 2000.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = pixel_wise(student, torch.tensor([2000.0, 0.0]).reshape(1, 2, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(2000)
    assert student.grad is not None
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    student = random_features(2, 5, 4, 4, dtype=dtype).requires_grad_()
    teacher = random_features(2, 5, 4, 4, seed=1, dtype=dtype)
    loss = pixel_wise(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.pixel_wise(student, teacher), rel=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_autocast_changes_nothing() -> None:
    student, teacher = random_features(2, 5, 4, 4).float(), random_features(2, 5, 4, 4, seed=1).float()
    expected = pixel_wise(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pixel_wise(student, teacher), expected)


def test_float64_stays() -> None:
    assert pixel_wise(pixel(0, 0), pixel(0, 1)).dtype == torch.float64


def test_the_term_gives_the_unweighted_loss_over_labelled_pixels() -> None:
    student, teacher = random_features(2, 3, 2, 2), random_features(2, 3, 2, 2, seed=1)
    labels = random_labels(2, 4, 4, num_classes=3)
    batch = Batch(torch.zeros(2, 3, 4, 4), labels, torch.zeros(2, 4), ["a", "b"])
    loss = PixelWise(weight=5.0, temperature=2.0)(Outputs(student, {}), Outputs(teacher, {}), batch)
    assert loss.item() == pytest.approx(reference.pixel_wise(student, teacher, labels, 2.0))


@pytest.mark.parametrize("weight", [-0.5, math.nan])
def test_a_bad_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=str(weight)):
        PixelWise(weight=weight)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=str(temperature)):
        PixelWise(temperature=temperature)
