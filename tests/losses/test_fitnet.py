"""Hints: values by hand, and when there is an adapter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from idd_seg.losses.fitnet import Hint, hint
from idd_seg.losses.ops.adapters import Adapter
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import random_features


def reference(student: Tensor, teacher: Tensor) -> float:
    pairs = list(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    return sum((s - t) ** 2 for s, t in pairs) / len(pairs)


def test_value_by_hand() -> None:
    student, teacher = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert hint(student.reshape(1, 1, 1, 2), teacher.reshape(1, 1, 1, 2)).item() == pytest.approx((1 + 4) / 2)
    assert hint(student.reshape(1, 2, 1, 1), teacher.reshape(1, 2, 1, 1)).item() == pytest.approx((1 + 4) / 2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 999))
def test_equals_the_literal_reference(shape: tuple[int, int, int, int], seed: int) -> None:
    student, teacher = random_features(*shape, seed=seed), random_features(*shape, seed=seed + 1)
    assert hint(student, teacher).item() == pytest.approx(reference(student, teacher), rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 3, 1, seed=1)
    assert torch.autograd.gradcheck(lambda x: hint(x, teacher), student)


def test_the_convolution_is_there_always_or_where_widths_differ() -> None:
    for option, widths, kind in (
        ("always", (4, 4), Adapter),
        ("always", (3, 4), Adapter),
        ("widths", (4, 4), nn.Identity),
        ("widths", (3, 4), Adapter),
    ):
        term = Hint(adapter=option)
        term.bind({"head": widths[0]}, {"head": widths[1]})
        assert type(term.adapter) is kind, (option, widths)


def test_logits_have_no_adapter() -> None:
    term = Hint(adapter="always", tap="logits")
    term.bind({"head": 3}, {"head": 4})
    assert type(term.adapter) is nn.Identity


def test_the_term_compares_the_adapted_student() -> None:
    torch.manual_seed(0)
    term = Hint()
    term.bind({"head": 2}, {"head": 3})
    assert isinstance(term.adapter, Adapter)
    student, teacher = random_features(2, 2, 3, 3, dtype=torch.float32), random_features(2, 3, 3, 3, seed=1)
    weight = term.adapter.weight[:, :, 0, 0]
    adapted = torch.einsum("dc,nchw->ndhw", weight, student) + term.adapter.bias[:, None, None]  # type: ignore[index]
    batch = Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 3, dtype=torch.long), torch.zeros(2, 4), ["x", "x"])
    value = term(Outputs(student, {"head": student}), Outputs(teacher, {"head": teacher}), batch)
    assert value.item() == pytest.approx(reference(adapted, teacher), rel=1e-5)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adapter.*always, widths.*never"):
        Hint(adapter="never")
