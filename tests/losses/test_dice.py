"""Soft overlap with the labels: values by hand, a slow reference, gradients, and what it is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idd_seg.losses.dice import Dice, dice
from idd_seg.losses.ops.overlaps import class_overlaps
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import random_features, random_labels


def reference(logits: Tensor, labels: Tensor) -> Tensor:
    probabilities = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False).softmax(1)
    missing = []
    for k in range(logits.shape[1]):
        valid, own = labels != 255, labels == k
        if own.any():
            true, everywhere = probabilities[:, k][own].sum(), probabilities[:, k][valid].sum()
            missing.append(1 - 2 * true / (everywhere + own.sum()))
    return torch.stack(missing).mean() if missing else logits.sum() * 0


def test_value_by_hand() -> None:
    # Two pixels of class 0 with 3/4 and 1/2, one of class 1 with 1/4, one ignored; class 2 does not occur.
    probabilities = torch.tensor([[0.75, 0.125, 0.125], [0.5, 0.5, 0], [0.25, 0.25, 0.5], [0, 1, 0]])
    logits = probabilities.double().clamp(min=1e-30).log().T[None, :, None, :]
    labels = torch.tensor([[[0, 0, 1, 255]]])
    first = 1 - 2 * 1.25 / (1.5 + 2)  # 2 T / (mass + pixels)
    second = 1 - 2 * 0.25 / (0.875 + 1)
    assert dice(logits, labels).item() == pytest.approx((first + second) / 2, rel=1e-12)


@pytest.mark.parametrize("grid", [(3, 5), (9, 12)])
@pytest.mark.parametrize("kind", ["some ignored", "all ignored", "absent"])
def test_equals_the_slow_reference(grid: tuple[int, int], kind: str) -> None:
    logits = random_features(2, 5, *grid).requires_grad_()
    labels = random_labels(2, 9, 12, num_classes=3 if kind == "absent" else 5)
    if kind == "all ignored":
        labels[:] = 255
    found, wanted = dice(logits, labels), reference(logits, labels)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-9, abs=1e-15)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-8, atol=1e-12)


def test_gradcheck() -> None:
    labels = random_labels(2, 5, 4, num_classes=3)
    logits = random_features(2, 3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice(x, labels), logits)


@pytest.mark.parametrize("band", [1, 100, 10**6])
def test_bands_do_not_change_it(band: int) -> None:
    labels = random_labels(2, 9, 7, num_classes=4)
    logits = random_features(2, 4, 3, 3).requires_grad_()
    whole, banded = (class_overlaps(logits, labels, 255, b) for b in (None, band))
    for one, other in zip(whole, banded, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    slopes = [torch.autograd.grad(sums[0].prod() + sums[1].sin().sum(), logits)[0] for sums in (whole, banded)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-9, atol=1e-12)


def test_scale_of_a_class_does_not_matter() -> None:
    """Cross-entropy hardly sees one pixel of a hundred; here it is half of the loss."""
    labels = torch.zeros(1, 10, 10, dtype=torch.int64)
    labels[0, 0, 0] = 1
    logits = torch.zeros(1, 2, 10, 10, dtype=torch.float64)
    logits[:, 0] = 20.0  # all is said to be class 0
    assert dice(logits, labels).item() == pytest.approx(0.5, abs=0.01)


def test_half_precision_is_computed_in_float32() -> None:
    logits = 30 * random_features(2, 4, 5, 5).to(torch.bfloat16)
    labels = random_labels(2, 10, 10, num_classes=4)
    loss = dice(logits, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(dice(logits.double(), labels).item(), rel=1e-5)


def test_the_term_needs_no_teacher() -> None:
    logits, labels = random_features(1, 3, 4, 4), random_labels(1, 8, 8, num_classes=3, stray=(7,))
    batch = Batch(torch.zeros(1, 3, 8, 8), labels, torch.zeros(1, 4), ["x"])
    term = Dice(weight=2.0, ignore_index=7)
    assert term(Outputs(logits, {}), None, batch) == dice(logits, labels, ignore_index=7)
    assert not term.needs_teacher


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Dice(weight=-1)
