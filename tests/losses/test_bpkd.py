"""Edges and bodies: where edges are, values by hand, the literal reference, gradients, labels, and the term's sum."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.bpkd import BoundaryPrivileged, edges_and_bodies
from idd_seg.losses.ops.class_edges import class_edges
from tests.losses.reference import log_softmax
from tests.losses.scenes import batch_of, is_zero_with_gradient, outputs_of, random_features, random_labels


def literal_edges(labels: Tensor, num_classes: int, h: int, w: int, width: int) -> Tensor:
    """Pixel by pixel and class by class: the window has the class, and something else."""
    n, height, across = labels.shape
    found = torch.zeros(n, num_classes, height, across, dtype=torch.float64)
    reach = width // 2
    for image in range(n):
        for y in range(height):
            for x in range(across):
                if not 0 <= labels[image, y, x] < num_classes:
                    continue
                window = labels[image, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                there = {k for k in window.flatten().tolist() if 0 <= k < num_classes}
                for k in there if len(there) > 1 else ():
                    found[image, k, y, x] = 1
    cells = torch.zeros(n, num_classes, h, w, dtype=torch.float64)
    for i in range(h):
        for j in range(w):
            rows = [y for y in range(height) if y * h // height == i] or [i * height // h]
            columns = [x for x in range(across) if x * w // across == j] or [j * across // w]
            cells[..., i, j] = found[..., rows, :][..., columns].mean((2, 3))
    return cells


def test_edges_by_hand() -> None:
    # Two classes meet between the pixels 3 and 4 of a row of 8; a window of 3 makes these two the edge of both.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).expand(1, 2, 8)
    row = class_edges(labels, 3, (1, 4), width=3)[0, :, 0]
    assert row.tolist() == [[0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_edges_are_the_dilation_less_the_erosion() -> None:
    labels = random_labels(2, 24, 32, num_classes=5, stray=(0,)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    mask = F.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    edge = F.max_pool2d(mask, 7, 1, 3) + F.max_pool2d(1 - mask, 7, 1, 3) - 1
    torch.testing.assert_close(class_edges(labels, 5, (6, 8), width=7), F.avg_pool2d(edge, 8))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    width=st.sampled_from([3, 5, 7, 9, 11]),
    num_classes=st.sampled_from([1, 2, 4, 33, 150]),
    seed=st.integers(0, 999),
)
def test_edges_equal_the_literal_reference(
    size: tuple[int, int], grid: tuple[int, int], width: int, num_classes: int, seed: int
) -> None:
    if size[0] < grid[0] or size[1] < grid[1]:
        grid = min(grid[0], size[0]), min(grid[1], size[1])
    labels = random_labels(2, *size, num_classes=num_classes, seed=seed, stray=(255, num_classes, -1))
    found = class_edges(labels, num_classes, grid, width=width)
    torch.testing.assert_close(found.double(), literal_edges(labels, num_classes, *grid, width))


def test_a_grid_that_is_finer_samples_the_edges() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    fine = class_edges(labels, 2, (2, 8), width=3)
    assert torch.equal(fine, class_edges(labels, 2, (1, 4), width=3).repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_what_is_ignored_makes_no_edge() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, 3:5] = 255
    assert not class_edges(labels, 2, (4, 4), width=7).any()


def divergence(student: list[float], teacher: list[float]) -> float:
    log_s, log_t = log_softmax(student), log_softmax(teacher)
    return sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True))


def reference(student: Tensor, teacher: Tensor, labels: Tensor, width: int, temperature: float) -> tuple[float, float]:
    n, k, h, w = student.shape
    height, across = labels.shape[1:]
    edges = literal_edges(labels, k, h, w, width)
    by_class, bodies = [], []
    for image in range(n):
        read = {(i, j): int(labels[image, i * height // h, j * across // w]) for i in range(h) for j in range(w)}
        places = [place for place, label in read.items() if 0 <= label < k]
        if not places:
            continue
        mask = {place: edges[image, :, place[0], place[1]].tolist() for place in places}
        sides = [{p: (x[image, :, p[0], p[1]] / temperature).tolist() for p in places} for x in (student, teacher)]
        apart = {}
        for p in places:
            masked = [[m * v for m, v in zip(mask[p], side[p], strict=True)] for side in sides]
            apart[p] = temperature**2 * divergence(*masked)
        for c in range(k):
            amount = sum(mask[p][c] for p in places)
            if amount > 0:
                by_class.append(sum(mask[p][c] * apart[p] for p in places) / amount)
            body = [[(1 - mask[p][c]) * side[p][c] for p in places] for side in sides]
            bodies.append(temperature**2 * divergence(*body))
    return tuple(sum(x) / len(x) if x else 0.0 for x in (by_class, bodies))  # type: ignore[return-value]


def test_value_by_hand() -> None:
    # Both cells are half edge of both classes: logits are halved for both parts.
    student = torch.tensor([[2.0, 4.0], [0.0, 0.0]]).reshape(1, 2, 1, 2).double()
    teacher = torch.tensor([[0.0, 4.0], [2.0, 0.0]]).reshape(1, 2, 1, 2).double()
    edge, body = edges_and_bodies(student, teacher, torch.tensor([[[0, 0, 1, 1]]]), width=3)
    # The first cell has 1, 0 against 0, 1, and the second agrees; both weigh the same for both classes.
    assert edge.item() == pytest.approx(divergence([1.0, 0.0], [0.0, 1.0]) / 2)
    expected = divergence([1.0, 2.0], [0.0, 2.0]) + divergence([0.0, 0.0], [1.0, 0.0])
    assert body.item() == pytest.approx(expected / 2)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    scale=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    width=st.sampled_from([3, 7]),
    temperature=st.sampled_from([1.0, 2.5]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int, grid: tuple[int, int], scale: tuple[int, int], width: int, temperature: float, seed: int
) -> None:
    student, teacher = random_features(images, 4, *grid, seed=seed), random_features(images, 4, *grid, seed=seed + 1)
    size = grid[0] * scale[0], grid[1] * scale[1]
    labels = random_labels(images, *size, num_classes=4, seed=seed, stray=(255, 4, -1))
    found = edges_and_bodies(student, teacher, labels, width=width, temperature=temperature)
    expected = reference(student, teacher, labels, width, temperature)
    assert [x.item() for x in found] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("part", [0, 1])
def test_gradient_equals_finite_differences(part: int) -> None:
    student, teacher = random_features(2, 3, 3, 2).requires_grad_(), random_features(2, 3, 2, 2, seed=1)
    labels = random_labels(2, 9, 6, num_classes=3)
    assert torch.autograd.gradcheck(lambda x: edges_and_bodies(x, teacher, labels, width=3)[part], student)


def test_ignored_pixels_take_no_part() -> None:
    student, teacher = random_features(1, 3, 2, 6), random_features(1, 3, 2, 6, seed=1)
    labels = random_labels(1, 2, 6, num_classes=3, stray=(0,)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[..., 8:] = 255
    cut = edges_and_bodies(student[..., :4], teacher[..., :4], labels[..., :8])
    for found, expected in zip(edges_and_bodies(student, teacher, labels), cut, strict=True):
        torch.testing.assert_close(found, expected)


def test_without_edges_or_labels_the_cost_is_exactly_zero() -> None:
    teacher = random_features(2, 3, 2, 2, seed=1)
    for only, parts in ((0, (0,)), (255, (0, 1))):
        for part in parts:
            student = random_features(2, 3, 2, 2).requires_grad_()
            loss = edges_and_bodies(student, teacher, torch.full((2, 4, 4), only))[part]
            assert is_zero_with_gradient(loss, student)


def test_the_term_adds_up_its_parts() -> None:
    x, y = random_features(2, 3, 4, 4, dtype=torch.float32), random_features(2, 3, 4, 4, seed=1, dtype=torch.float32)
    labels = random_labels(2, 8, 8, num_classes=3)
    edge, body = edges_and_bodies(x, y, labels, width=3, temperature=2.0)
    term = BoundaryPrivileged(edge_weight=5.0, body_weight=7.0, width=3, temperature=2.0)
    torch.testing.assert_close(term(outputs_of(x), outputs_of(y), batch_of(labels)), 5 * edge + 7 * body)
    assert term.label_use == "classes"
    assert not term.state_dict()
    assert term.teacher_maps == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 4}, "width must be odd, got 4"),
        ({"width": 1}, "width.*1"),
        ({"temperature": 0.0}, "temperature.*0"),
        ({"edge_weight": -1.0}, "edge_weight.*-1"),
        ({"edge_weight": 0.0, "body_weight": 0.0}, "edge_weight, body_weight"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoundaryPrivileged(**options)  # type: ignore[arg-type]
