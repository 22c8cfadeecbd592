"""Attention transfer: a value by hand and equality with the literal reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.at import attention_transfer
from tests.losses.scenes import random_features


def attention(image: list[list[float]]) -> list[float]:
    """Normalised strengths of the positions of one image, given as channels of values."""
    strength = [sum(channel[p] ** 2 for channel in image) / len(image) for p in range(len(image[0]))]
    length = math.sqrt(sum(q**2 for q in strength))
    return [q / length if length else 0.0 for q in strength]


def reference(student: Tensor, teacher: Tensor) -> float:
    terms = []
    for ours, theirs in zip(student.flatten(2).tolist(), teacher.flatten(2).tolist(), strict=True):
        terms += [(s - t) ** 2 for s, t in zip(attention(ours), attention(theirs), strict=True)]
    return sum(terms) / len(terms)


def test_value_by_hand() -> None:
    # Student: strengths 9 and 16, of length sqrt(337). Teacher: (1 + 1) / 2 and (4 + 0) / 2, 1 and 2, of sqrt(5).
    student = torch.tensor([3.0, -4.0]).reshape(1, 1, 1, 2)
    teacher = torch.tensor([[1.0, 2.0], [-1.0, 0.0]]).reshape(1, 2, 1, 2)
    first, second = 9 / math.sqrt(337) - 1 / math.sqrt(5), 16 / math.sqrt(337) - 2 / math.sqrt(5)
    assert attention_transfer(student, teacher).item() == pytest.approx((first**2 + second**2) / 2, rel=1e-5)


def test_opposite_attention_is_the_largest_loss() -> None:
    # (1, 0) and (0, 1): 2 / P.
    student = torch.tensor([7.0, 0.0]).reshape(1, 1, 2, 1)
    assert attention_transfer(student, student.flip(2)).item() == pytest.approx(2 / 2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    width=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(shape: tuple[int, int, int, int], width: int, seed: int) -> None:
    student = random_features(*shape, seed=seed)
    teacher = random_features(shape[0], width, *shape[2:], seed=seed + 1)
    expected = reference(student, teacher)
    assert attention_transfer(student, teacher).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 3).requires_grad_(), random_features(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: attention_transfer(x, teacher), student)


@pytest.mark.parametrize("scale", [1e-4, 30.0])
def test_the_scale_and_the_sign_of_either_side_do_not_matter(scale: float) -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    expected = attention_transfer(student, teacher)
    torch.testing.assert_close(attention_transfer(-scale * student, teacher), expected)
    torch.testing.assert_close(attention_transfer(student, -scale * teacher), expected)


def test_an_image_of_zeros_changes_no_other() -> None:
    # Image 0 as it is; image 1: 0 against a teacher's map of length 1 with squares summing to 1.
    student, teacher = random_features(1, 3, 2, 2), random_features(1, 3, 2, 2, seed=1)
    alone = attention_transfer(student, teacher).item()
    both = attention_transfer(torch.cat([student, 0 * student]), torch.cat([teacher, teacher])).item()
    assert both == pytest.approx((alone + 1 / 4) / 2)
