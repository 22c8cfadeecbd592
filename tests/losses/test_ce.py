"""Cross-entropy: values by hand and equality with the literal reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.ce import CrossEntropy, cross_entropy
from idd_seg.types import Batch, Outputs
from tests.losses import reference
from tests.losses.scenes import descend, random_features, random_labels


def batch_of(labels: Tensor) -> Batch:
    n, h, w = labels.shape
    return Batch(torch.zeros(n, 3, h, w), labels, torch.zeros(n, 4), ["x"] * n)


def test_value_by_hand() -> None:
    # softmax(0, ln 3) = (1/4, 3/4).
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    assert cross_entropy(logits, torch.tensor([[[1]]])).item() == pytest.approx(math.log(4 / 3))
    assert cross_entropy(logits, torch.tensor([[[0]]])).item() == pytest.approx(math.log(4))


def test_ignored_pixels_are_neither_summed_nor_counted() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([math.log(3), 0.0, 50.0, 9.0])
    # Pixels of class 1: ln(4 / 3) and ln 2; two are ignored.
    loss = cross_entropy(logits, torch.tensor([[[1, 1, 255, 255]]]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_logits_are_enlarged_between_the_centres_of_cells() -> None:
    # From 2 to 4 columns the logits 0 and 4 of class 1 become 0, 1, 3, 4 (corners aligned would give 0, 4/3, 8/3, 4).
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0, 1] = 4.0
    loss = cross_entropy(logits, torch.ones(1, 1, 4, dtype=torch.long))
    assert loss.item() == pytest.approx(sum(math.log1p(math.exp(-x)) for x in (0, 1, 3, 4)) / 4)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4)),
    factor=st.tuples(st.sampled_from([1, 1.5, 2, 3]), st.sampled_from([1, 1.5, 2, 3])),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(shape: tuple[int, int, int, int], factor: tuple[float, float], seed: int) -> None:
    logits = 3 * random_features(*shape, seed=seed)
    size = (math.ceil(shape[2] * factor[0]), math.ceil(shape[3] * factor[1]))
    labels = random_labels(shape[0], *size, num_classes=shape[1], seed=seed)
    expected = reference.cross_entropy(logits, labels)
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    labels = random_labels(2, 4, 4, num_classes=3)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels), random_features(2, 3, 2, 2).requires_grad_())


def test_descent_lowers_the_loss() -> None:
    labels = torch.tensor([[[0, 0, 1, 2], [0, 0, 1, 2]]])
    losses = descend(random_features(1, 3, 1, 2).requires_grad_(), lambda x: cross_entropy(x, labels))
    assert losses[-1] < 0.8 * losses[0]


def test_all_ignored_is_zero_with_a_gradient() -> None:
    logits = random_features(2, 3, 2, 2).requires_grad_()
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_another_ignore_index() -> None:
    logits, labels = random_features(1, 3, 4, 4), random_labels(1, 4, 4, num_classes=3, stray=(-1,))
    expected = reference.cross_entropy(logits, labels, ignore=-1)
    assert cross_entropy(logits, labels, ignore_index=-1).item() == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [2, 1000])
def test_few_and_many_classes(num_classes: int) -> None:
    """An untrained network is as unsure as the number of classes says."""
    labels = random_labels(1, 4, 4, num_classes=num_classes, stray=(-1,))
    loss = cross_entropy(torch.zeros(1, num_classes, 2, 2), labels, ignore_index=-1)
    assert loss.item() == pytest.approx(math.log(num_classes), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = random_features(2, 5, 2, 2, dtype=dtype).requires_grad_()
    labels = random_labels(2, 4, 4, num_classes=5)
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.cross_entropy(logits, labels), rel=1e-5)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_autocast_changes_nothing() -> None:
    logits, labels = random_features(2, 5, 2, 2).float(), random_labels(2, 4, 4, num_classes=5)
    expected = cross_entropy(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_the_term_adds_the_auxiliary_head() -> None:
    logits, auxiliary = random_features(2, 3, 2, 2), random_features(2, 3, 2, 2, seed=1)
    labels = random_labels(2, 4, 4, num_classes=3)
    main, side = reference.cross_entropy(logits, labels), reference.cross_entropy(auxiliary, labels)
    both = Outputs(logits, {}, auxiliary)
    assert CrossEntropy(weight=3.0)(both, None, batch_of(labels)).item() == pytest.approx(main + 0.4 * side)
    assert CrossEntropy(auxiliary=1.5)(both, None, batch_of(labels)).item() == pytest.approx(main + 1.5 * side)
    assert CrossEntropy()(Outputs(logits, {}), None, batch_of(labels)).item() == pytest.approx(main)


def test_the_term_needs_no_teacher() -> None:
    assert not CrossEntropy().needs_teacher


@pytest.mark.parametrize("name", ["weight", "auxiliary"])
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}.*-2.5"):
        CrossEntropy(**{name: -2.5})
