"""Class means on the feature grid: values by hand, and equality with the literal reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.idd import class_means
from tests.losses import reference
from tests.losses.scenes import random_features, random_labels

SCOPES = ("image", "batch", "world")


def dense(graphs: list[dict[int, list[float]]], num_classes: int, width: int) -> Tensor:
    zero = [0.0] * width
    return torch.tensor([[graph.get(k, zero) for k in range(num_classes)] for graph in graphs], dtype=torch.float64)


def dense_pixels(graphs: list[dict[int, float]], num_classes: int) -> Tensor:
    return torch.tensor([[graph.get(k, 0.0) for k in range(num_classes)] for graph in graphs], dtype=torch.float64)


def test_means_and_pixels_by_hand() -> None:
    # Class 0 covers 1 and 2, class 1 covers 3, the 5 is ignored, class 2 is absent.
    features = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    means, pixels = class_means(features, torch.tensor([[[0, 0], [1, 255]]]), 3)
    torch.testing.assert_close(means, torch.tensor([[[1.5], [3.0], [0.0]]]))
    assert pixels.tolist() == [[2, 1, 0]]


def test_nearest_reads_row_floor_of_i_h_over_the_grid() -> None:
    # A grid of 2 x 1 over 5 x 3 labels reads rows 0 and floor(5 / 2) = 2 of column 0.
    labels = torch.arange(15).reshape(1, 5, 3)
    _, pixels = class_means(torch.ones(1, 1, 2, 1), labels, 15)
    assert pixels[0].nonzero().flatten().tolist() == [0, 6]


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_nearest_is_exact_integer_arithmetic_at_every_size(axis: int) -> None:
    """Rounding in floating point is off by one at a few sizes, such as 49 rows of a grid."""
    for cells in (1, 3, 7, 13, 29, 41, 47, 49, 55, 61, 82, 94, 98, 107):
        for rows in range(1, 120, 7):
            shape, label_shape = ((cells, 1), (rows, 1)) if axis == 0 else ((1, cells), (1, rows))
            _, pixels = class_means(torch.ones(1, 1, *shape), torch.arange(rows).reshape(1, *label_shape), rows)
            expected = [0.0] * rows
            for i in range(cells):
                expected[i * rows // cells] += 1
            assert pixels[0].tolist() == expected, f"{cells} cells, {rows} label rows"


def test_area_by_hand() -> None:
    # Label rows 0, 1, 2 belong to cells 0, 0, 1: cell 0 is half class 0, half class 1; cell 1 is class 1.
    # Mean of class 0: 2; of class 1: (0.5 * 2 + 1 * 8) / 1.5 = 6.
    features = torch.tensor([2.0, 8.0]).reshape(1, 1, 2, 1)
    means, pixels = class_means(features, torch.tensor([0, 1, 1]).reshape(1, 3, 1), 2, resize="area")
    torch.testing.assert_close(means, torch.tensor([[[2.0], [6.0]]]))
    torch.testing.assert_close(pixels, torch.tensor([[0.5, 1.5]]))


def test_area_counts_ignored_pixels_to_the_size_of_a_cell_alone() -> None:
    # One cell of 4 pixels: class 0 has one, two are ignored, one is no class at all.
    means, pixels = class_means(torch.full((1, 1, 1, 1), 6.0), torch.tensor([[[0, 255], [255, 9]]]), 2, resize="area")
    torch.testing.assert_close(means, torch.tensor([[[6.0], [0.0]]]))
    torch.testing.assert_close(pixels, torch.tensor([[0.25, 0.0]]))


def test_an_ignore_index_inside_the_range_of_classes_is_ignored() -> None:
    features = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    means, pixels = class_means(features, torch.tensor([[[0, 1, 2]]]), 3, ignore_index=0)
    assert pixels.tolist() == [[0, 1, 1]]
    assert means.flatten().tolist() == [0, 2, 3]


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_stray_labels_take_no_part(resize: str) -> None:
    features = random_features(1, 2, 1, 6)
    clean = torch.tensor([[[0, 255, 1, 255, 1, 0]]])
    stray = torch.tensor([[[0, -1, 1, 3, 1, 0]]])
    for ours, theirs in zip(
        class_means(features, stray, 3, resize=resize), class_means(features, clean, 3, resize=resize), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("scope", "graphs"), [("image", 3), ("batch", 1), ("world", 1)])
def test_shapes_by_scope(scope: str, graphs: int) -> None:
    means, pixels = class_means(torch.ones(3, 4, 2, 2), torch.zeros(3, 4, 4, dtype=torch.long), 5, scope=scope)
    assert means.shape == (graphs, 5, 4)
    assert pixels.shape == (graphs, 5)
    assert pixels.sum() == 12


def test_a_batch_is_the_mean_over_pixels_and_not_over_images() -> None:
    # Class 0 has the pixels 1, 1, 1 in one image and 5 in the other: (1 + 1 + 1 + 5) / 4 = 2, not (1 + 5) / 2.
    features = torch.tensor([[1.0, 1.0, 1.0], [5.0, 7.0, 7.0]]).reshape(2, 1, 1, 3)
    means, _ = class_means(features, torch.tensor([[[0, 0, 0]], [[0, 1, 1]]]), 2, scope="batch")
    torch.testing.assert_close(means, torch.tensor([[[2.0], [7.0]]]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    num_classes=st.integers(1, 7),
    resize=st.sampled_from(["nearest", "area"]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int, grid: tuple[int, int], size: tuple[int, int], num_classes: int, resize: str, seed: int
) -> None:
    if resize == "area":
        # A cell without any pixel has no share of anything: labels are as fine as the grid.
        size = max(size[0], grid[0]), max(size[1], grid[1])
    features = random_features(images, 3, *grid, seed=seed)
    labels = random_labels(images, *size, num_classes=num_classes, seed=seed, stray=(255, 254, num_classes, -1, -7))
    for scope in SCOPES:
        means, pixels = class_means(features, labels, num_classes, scope=scope, resize=resize)
        expected, counts = reference.class_means(features, labels, num_classes, scope=scope, resize=resize)
        torch.testing.assert_close(means, dense(expected, num_classes, 3), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(pixels.double(), dense_pixels(counts, num_classes), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("resize", ["nearest", "area"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, resize: str) -> None:
    # 1024 cells of 100 add up to 102400, beyond the largest float16.
    means, pixels = class_means(
        torch.full((1, 1, 32, 32), 100, dtype=dtype), torch.zeros(1, 32, 32, dtype=torch.long), 1, resize=resize
    )
    assert means.dtype == torch.float32
    assert means.item() == pytest.approx(100)
    assert pixels.item() == pytest.approx(1024)


def test_float64_stays() -> None:
    means, _ = class_means(random_features(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), 1)
    assert means.dtype == torch.float64


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_absent_classes_are_exactly_zero_where_all_is_ignored(resize: str) -> None:
    means, pixels = class_means(
        random_features(2, 3, 2, 2), torch.full((2, 4, 4), 255, dtype=torch.long), 4, resize=resize
    )
    assert means.shape == (2, 4, 3)
    assert not means.any()
    assert not pixels.any()


@pytest.mark.parametrize("resize", ["nearest", "area"])
def test_gradient_of_means(resize: str) -> None:
    labels = random_labels(2, 5, 5, num_classes=3)
    features = random_features(2, 2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: class_means(x, labels, 3, resize=resize)[0], features)


@pytest.mark.parametrize("option", ["scope", "resize"])
def test_unknown_options_are_refused(option: str) -> None:
    allowed = {"scope": SCOPES, "resize": ("nearest", "area")}[option]
    with pytest.raises(ValueError, match="bilinear") as error:
        class_means(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long), 2, **{option: "bilinear"})
    assert all(value in str(error.value) for value in allowed)
