"""My term: a value by hand, equality with the literal reference, its gradient, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from idd_seg.losses.my_term import MyTerm, my_loss
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features, random_labels


def reference(student: Tensor, teacher: Tensor, labels: Tensor, margin: float) -> float:
    """Cell by cell, in Python's floats: as slow as the formula reads."""
    found = []
    for ours, theirs, classes in zip(student, teacher, labels, strict=True):
        for row, column in (classes != 255).nonzero().tolist():
            s, t = ours[:, row, column].tolist(), theirs[:, row, column].tolist()
            cosine = sum(a * b for a, b in zip(s, t, strict=True)) / math.dist(s, [0] * len(s)) / math.hypot(*t)
            found.append(max(0.0, 1 - margin - cosine))
    return sum(found) / len(found)


def outputs(x: Tensor) -> Outputs:
    return Outputs(x, {"head": x})


def batch_of(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, torch.zeros(len(labels), 4), ["x"] * len(labels))


def test_value_by_hand() -> None:
    # Cosines 3/5 and 0; the third cell is ignored.
    student = torch.tensor([[3.0, 1.0, 1.0], [4.0, 0.0, 0.0]]).reshape(1, 2, 1, 3)
    teacher = torch.tensor([[2.0, 0.0, 0.0], [0.0, 7.0, 1.0]]).reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 4, 255]]])
    assert my_loss(student, teacher, labels).item() == pytest.approx((2 / 5 + 1) / 2)
    assert my_loss(student, teacher, labels, margin=0.5).item() == pytest.approx((0 + 0.5) / 2)


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_equals_the_literal_reference(margin: float) -> None:
    student, teacher = random_features(2, 3, 4, 5), random_features(2, 3, 4, 5, seed=1)
    labels = random_labels(2, 4, 5, num_classes=3)
    loss = my_loss(student, teacher, labels, margin=margin)
    assert loss.item() == pytest.approx(reference(student, teacher, labels, margin), rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 3).requires_grad_(), random_features(2, 3, 3, 3, seed=1)
    labels = random_labels(2, 4, 6, num_classes=3)
    assert torch.autograd.gradcheck(lambda x: my_loss(x, teacher, labels), student)


def test_descent_lowers_the_loss() -> None:
    student, teacher = random_features(2, 3, 4, 4).requires_grad_(), random_features(2, 3, 4, 4, seed=1)
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    losses = descend(student, lambda x: my_loss(x, teacher, labels), steps=60, lr=0.05)
    assert losses[-1] < 0.5 * losses[0]


def test_an_ignored_cell_changes_nothing_and_none_at_all_cost_zero() -> None:
    student, teacher = random_features(1, 3, 2, 2).requires_grad_(), random_features(1, 3, 2, 2, seed=1)
    loss = my_loss(student, teacher, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (random_features(2, 3, 4, 4, seed=seed, dtype=dtype) for seed in (0, 1))
    labels = random_labels(2, 8, 8, num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = my_loss(student, teacher, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(my_loss(student.double(), teacher.double(), labels).item(), rel=1e-4)


def test_the_term_adapts_widths_and_measures() -> None:
    torch.manual_seed(0)
    term = MyTerm(margin=0.1)
    term.bind({"head": 2}, {"head": 3})
    student, teacher = random_features(1, 2, 4, 4).float(), random_features(1, 3, 4, 4, seed=1).float()
    batch = batch_of(torch.zeros(1, 8, 8, dtype=torch.long))
    assert term(outputs(student), outputs(teacher), batch).requires_grad  # of the adapter
    assert -1 <= term.measure(outputs(student), outputs(teacher), batch)["cosine"].item() <= 1


@pytest.mark.parametrize("margin", [-0.1, 2.0, math.nan])
def test_a_bad_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin.*{margin}"):
        MyTerm(margin=margin)
