"""Cross-entropy in bands is the cross-entropy of interpolated logits, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.ce import cross_entropy
from idd_seg.losses.ops.chunked_cross_entropy import summed_cross_entropy, true_probabilities


def plain(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """The definition: logits of full size, all at once."""
    wide = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(wide, labels, ignore_index=ignore_index, reduction="sum")


def case(images: int, classes: int, grid: tuple[int, int], size: tuple[int, int], dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, classes, *grid, generator=generator, dtype=dtype)
    labels = torch.randint(classes + 1, (images, *size), generator=generator)
    return logits.requires_grad_(), torch.where(labels == classes, 255, labels)


@given(
    st.integers(1, 3), st.integers(2, 5), st.integers(1, 7), st.integers(1, 7), st.integers(1, 20), st.integers(1, 20),
    st.integers(1, 400),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_value_and_gradient_are_those_of_full_size_logits(images, classes, h, w, height, width, band) -> None:
    logits, labels = case(images, classes, (h, w), (height, width))
    expected, found = plain(logits, labels), summed_cross_entropy(logits, labels, 255, band)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(2 * found, logits)
    torch.testing.assert_close(slope, 2 * torch.autograd.grad(expected, logits)[0], rtol=1e-9, atol=1e-10)


@given(
    st.integers(1, 3), st.integers(2, 5), st.integers(1, 5), st.integers(1, 12), st.integers(1, 200),
    st.sampled_from([0.0, 0.1, 0.9]), st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_weights_and_smoothing_are_those_of_torch(images, classes, cells, pixels, band, smoothing, weighted) -> None:
    logits, labels = case(images, classes, (cells, cells), (pixels, pixels + 1))
    weights = torch.rand(classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64) if weighted else None
    wide = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    options = {"ignore_index": 255, "weight": weights, "label_smoothing": smoothing}
    expected = F.cross_entropy(wide, labels, reduction="sum", **options)
    found = summed_cross_entropy(logits, labels, 255, band, class_weights=weights, smoothing=smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, logits)[0], rtol=1e-9, atol=1e-10)
    if (labels != 255).any():
        mean = cross_entropy(logits, labels, class_weights=weights, label_smoothing=smoothing)
        wide = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(mean, F.cross_entropy(wide, labels, **options), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("band", [1, 60, 10**6])
def test_probabilities_of_the_own_class(band: int) -> None:
    logits, labels = case(2, 3, (3, 4), (7, 9))
    wide = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False).softmax(1)
    expected = wide.gather(1, torch.where(labels == 255, 0, labels)[:, None])[:, 0].masked_fill(labels == 255, 1.0)
    torch.testing.assert_close(true_probabilities(logits, labels, 255, band), expected.detach())


def test_the_gradient_is_the_value_s() -> None:
    logits, labels = case(2, 3, (3, 4), (7, 9))
    assert torch.autograd.gradcheck(lambda x: summed_cross_entropy(x, labels, 255, 40), (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = case(2, 4, (8, 8), (32, 32), torch.float32)
    coarse = logits.detach().to(dtype).requires_grad_()
    found = summed_cross_entropy(coarse, labels, 255)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain(coarse.float(), labels))
    assert torch.autograd.grad(found, coarse)[0].dtype == dtype


def test_nothing_counts_where_all_is_ignored() -> None:
    logits, labels = case(1, 3, (2, 2), (8, 8))
    found = cross_entropy(logits, torch.full_like(labels, 255))
    assert float(found.detach()) == 0
    assert torch.autograd.grad(found, logits)[0].abs().max() == 0


def test_an_own_ignore_index_is_left_out() -> None:
    logits, labels = case(1, 3, (2, 2), (8, 8))
    labels = torch.where(labels == 255, -1, labels)
    torch.testing.assert_close(summed_cross_entropy(logits, labels, -1, 30), plain(logits, labels, -1))


def test_channels_last_logits_give_the_same() -> None:
    logits, labels = case(2, 5, (4, 6), (16, 20))
    last = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    expected, found = summed_cross_entropy(logits, labels, 255), summed_cross_entropy(last, labels, 255)
    torch.testing.assert_close(found, expected)
    (slope,) = torch.autograd.grad(found, last)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, logits)[0])


def test_products_stay_in_float32_where_tf32_is_allowed() -> None:
    logits, labels = case(1, 3, (4, 4), (16, 16), torch.float32)
    expected = summed_cross_entropy(logits, labels, 255)
    torch.set_float32_matmul_precision("medium")
    try:
        found = summed_cross_entropy(logits, labels, 255)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert float(found.detach()) == float(expected.detach())
