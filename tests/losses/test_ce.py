"""Cross-entropy: values by hand and equality with the literal reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.ce import CrossEntropy, cross_entropy, hard_pixels
from idd_seg.losses.ops.class_weights import ClassCounts, median_frequency
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


# Classes that are rare, and pixels that are hard.


def test_class_weights_by_hand() -> None:
    # ln 4 of class 0, which counts three times, and ln(4 / 3) of class 1.
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    loss = cross_entropy(logits, torch.tensor([[[0, 1]]]), class_weights=torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * math.log(4) + math.log(4 / 3)) / 4)


def test_a_mean_of_small_weights_is_a_mean() -> None:
    logits, labels = torch.randn(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    small = cross_entropy(logits, labels, class_weights=torch.tensor([1e-4, 1.0]))
    assert small.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


def test_label_smoothing_by_hand() -> None:
    # A tenth of the target is spread over both classes: 0.95 and 0.05.
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    loss = cross_entropy(logits, torch.tensor([[[1]]]), label_smoothing=0.1)
    assert loss.item() == pytest.approx(0.95 * math.log(4 / 3) + 0.05 * math.log(4))


def of_probabilities(*own: float) -> tuple[Tensor, Tensor]:
    """Return logits of two classes whose pixels have these probabilities of their own class, 1."""
    p = torch.tensor(own, dtype=torch.float64)
    return torch.stack([torch.log(1 - p), torch.log(p)])[None, :, None], torch.ones(1, 1, len(own), dtype=torch.long)


@pytest.mark.parametrize(
    ("probability", "least", "kept"),
    [
        (0.5, 0.0, [0, 2]), (0.5, 0.5, [0, 2]), (0.5, 0.75, [0, 2, 3]),
        (0.05, 0.0, []), (0.05, 0.25, [0]), (1.0, 0.0, [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_hard_pixels_stay(probability: float, least: float, kept: list[int]) -> None:
    logits, labels = of_probabilities(0.1, 0.9, 0.3, 0.7)
    found = hard_pixels(logits, labels, probability=probability, least=least)
    assert found[0, 0].eq(1).nonzero().flatten().tolist() == kept
    assert set(found.unique().tolist()) <= {1, 255}


def test_ignored_pixels_are_never_hard_nor_counted() -> None:
    logits, labels = of_probabilities(0.1, 0.9, 0.3, 0.7)
    labels[0, 0, 0] = 255
    assert hard_pixels(logits, labels, probability=0.2, least=1 / 3)[0, 0].tolist() == [255, 255, 1, 255]


def test_the_loss_of_hard_pixels_is_their_mean() -> None:
    logits, labels = of_probabilities(0.1, 0.9, 0.3, 0.7)
    term = CrossEntropy(ohem=0.5, ohem_least=0.0)
    loss = term(Outputs(logits, {}), None, batch_of(labels))
    assert loss.item() == pytest.approx((math.log(10) + math.log(10 / 3)) / 2)
    nothing = CrossEntropy(ohem=0.05, ohem_least=0.0)(Outputs(logits, {}), None, batch_of(labels))
    assert nothing.item() == 0


def test_every_class_counts_as_the_median_one() -> None:
    # Classes 0, 1 and 2 are 8 of 10, 1 of 10 and 2 of 20 labelled pixels where they occur; 3 does not occur.
    counts = ClassCounts(torch.tensor([8, 1, 2, 0]), torch.tensor([10, 10, 20, 0]))
    assert median_frequency(counts).tolist() == pytest.approx([0.125, 1.0, 1.0, 1.0])
    assert median_frequency(ClassCounts(torch.zeros(2), torch.zeros(2))).tolist() == [1.0, 1.0]


def test_the_training_labels_are_counted_when_they_are_needed() -> None:
    asked = []

    def counts() -> ClassCounts:
        asked.append(1)
        return ClassCounts(torch.tensor([9, 1]), torch.tensor([10, 10]))

    plain, numbers, frequency = (CrossEntropy(class_weights=w) for w in (None, [1, 2], "median_frequency"))
    for term in (plain, numbers):
        term.bind_classes(2, counts)
    assert asked == []
    frequency.bind_classes(2, counts)
    frequency.bind_classes(2, counts)  # by the look before a run, and by the run
    assert asked == [1]
    assert frequency.class_weights.tolist() == pytest.approx([0.5 / 0.9, 5.0])
    with pytest.raises(ValueError, match="class_weights are 2 numbers, and there are 3 classes"):
        numbers.bind_classes(3, counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": "median"}, "must be median_frequency, a number for each class or null, got 'median'"),
        ({"class_weights": [1.0, -1.0]}, "class_weights must be finite numbers >= 0"),
        ({"class_weights": [0.0, 0.0]}, "one of them above 0"),
        ({"class_weights": [math.inf, 1.0]}, "finite"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a number from 0 to below 1, got 1.0"),
        ({"ohem": 0}, "ohem must be a probability above 0, up to 1, or null, got 0"),
        ({"ohem": 0.7, "ohem_least": 2}, "ohem_least must be a share from 0 to 1, got 2"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossEntropy(**options)
