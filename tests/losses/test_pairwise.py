"""Pair-wise distillation: values by hand, both poolings, and equality with the literal reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses import pairwise as module
from idd_seg.losses.pairwise import Pairwise, pairwise
from tests.losses.scenes import random_features


def node_vectors(image: Tensor, pool: float) -> list[list[float]]:
    """Maxima of the windows of one image (C, h, w), a window at a time."""
    channels, h, w = image.shape
    height, width = (min(max(pool if isinstance(pool, int) else int(pool * side), 1), side) for side in (h, w))
    vectors = []
    for top in range(0, h, height):
        for left in range(0, w, width):
            cells = [(i, j) for i in range(top, min(top + height, h)) for j in range(left, min(left + width, w))]
            vectors.append([max(float(image[c, i, j]) for i, j in cells) for c in range(channels)])
    return vectors


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def reference(student: Tensor, teacher: Tensor, pool: float) -> float:
    terms = []
    for ours, theirs in zip(student.detach(), teacher.detach(), strict=True):
        nodes_s, nodes_t = node_vectors(ours, pool), node_vectors(theirs, pool)
        for i in range(len(nodes_s)):
            for j in range(len(nodes_s)):
                terms.append((cosine(nodes_s[i], nodes_s[j]) - cosine(nodes_t[i], nodes_t[j])) ** 2)
    return sum(terms) / len(terms)


def line(*vectors: tuple[float, ...]) -> Tensor:
    """A feature map of one row with a vector in each cell, (1, C, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


def test_value_by_hand() -> None:
    # Cosines 0.6 and 0 off the diagonal, 1 on it: 2 * 0.36 / 4.
    loss = pairwise(line((1, 0), (3, 4)), line((7, 0), (0, 2)), pool=1)
    assert loss.item() == pytest.approx(0.18, rel=1e-9)


def test_a_window_is_its_channel_wise_maximum() -> None:
    # Maxima (1, 0) and (3, 4), each channel's from another cell.
    student = line((1, -1), (0, 0), (3, 1), (2, 4))
    loss = pairwise(student, line((7, 0), (1, 0), (0, 2), (0, 1)), pool=2)
    assert loss.item() == pytest.approx(0.18, rel=1e-9)


@pytest.mark.parametrize(
    ("pool", "size", "nodes"),
    [
        (0.5, (65, 65), 9),
        (0.5, (64, 64), 4),
        (0.5, (64, 128), 4),
        (0.5, (45, 60), 6),
        (0.35, (64, 64), 9),
        (0.35, (64, 128), 9),
        (0.29, (100, 1), 4),
        (2, (64, 64), 1024),
        (2, (65, 64), 33 * 32),
        (1, (5, 7), 35),
        (9, (4, 4), 1),
        (0.1, (3, 3), 9),
        (0.5, (1, 1), 1),
    ],
)
def test_the_number_of_nodes(pool: float, size: tuple[int, int], nodes: int) -> None:
    assert module._nodes(torch.ones(2, 3, *size), pool).shape == (2, nodes, 3)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pool=st.sampled_from([0.5, 0.26, 0.9, 1, 2, 3]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int, size: tuple[int, int], widths: tuple[int, int], pool: float, seed: int
) -> None:
    student, teacher = (random_features(images, width, *size, seed=seed + i) for i, width in enumerate(widths))
    expected = reference(student, teacher, pool)
    assert pairwise(student, teacher, pool=pool).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("entries", [1, 50, 10**6])
@pytest.mark.parametrize("pool", [1, 0.5])
def test_gradient_equals_finite_differences(pool: float, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", entries)
    student, teacher = random_features(2, 3, 3, 3).requires_grad_(), random_features(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: pairwise(x, teacher, pool=pool), student)


@pytest.mark.parametrize("entries", [1, 100, 150])
def test_chunks_change_nothing(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[Tensor, Tensor]:
        student = random_features(2, 3, 5, 5).requires_grad_()
        loss = pairwise(student, random_features(2, 4, 5, 5, seed=1), pool=1)
        (3 * loss).backward()
        assert student.grad is not None
        return loss.detach(), student.grad

    whole = run()
    monkeypatch.setattr(module, "ENTRIES", entries)
    torch.testing.assert_close(run(), whole)


def test_memory_does_not_grow_with_the_square_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that outlives a chunk is larger than the nodes; all chunks are of the asked size."""
    monkeypatch.setattr(module, "ENTRIES", 4000)
    seen = []
    bmm = torch.bmm

    def spy(a: Tensor, b: Tensor) -> Tensor:
        out = bmm(a, b)
        seen.append(out.numel())
        return out

    monkeypatch.setattr(torch, "bmm", spy)
    student = random_features(2, 3, 20, 20).requires_grad_()
    pairwise(student, random_features(2, 4, 20, 20, seed=1), pool=1).backward()
    assert len(seen) == 3 * 400 / 5
    assert max(seen) == 2 * 5 * 400


def test_a_second_derivative_is_refused() -> None:
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 2, 2, seed=1)
    with pytest.raises(RuntimeError, match="pairwise can't be differentiated again"):
        torch.autograd.grad(pairwise(student, teacher, pool=1), student, create_graph=True)


def test_without_gradients_the_loss_is_the_same() -> None:
    student, teacher = random_features(2, 3, 3, 3), random_features(2, 3, 3, 3, seed=1)
    expected = pairwise(student.clone().requires_grad_(), teacher, pool=1)
    loss = pairwise(student, teacher, pool=1)
    assert not loss.requires_grad
    assert loss.item() == expected.item() > 0


def test_the_scale_of_features_does_not_matter() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    expected = pairwise(student, teacher, pool=2)
    torch.testing.assert_close(pairwise(1e-3 * student, 50 * teacher, pool=2), expected)


def test_a_rotation_of_channels_does_not_matter() -> None:
    student, teacher = random_features(2, 4, 4, 4), random_features(2, 3, 4, 4, seed=1)
    rotation, _ = torch.linalg.qr(random_features(4, 4, seed=2))
    turned = torch.einsum("dc,nchw->ndhw", rotation, student)
    torch.testing.assert_close(pairwise(turned, teacher, pool=1), pairwise(student, teacher, pool=1))


def test_one_node_teaches_nothing() -> None:
    assert pairwise(random_features(2, 3, 1, 1), random_features(2, 3, 1, 1, seed=1), pool=0.5).item() < 1e-20


def test_a_node_of_zeros_is_similar_to_nothing() -> None:
    # Similarities of the student [[1, 0], [0, 0]], of the teacher [[1, 0.6], [0.6, 1]].
    student = line((1, 0), (0, 0)).requires_grad_()
    loss = pairwise(student, line((1, 0), (3, 4)), pool=1)
    loss.backward()
    assert loss.item() == pytest.approx((2 * 0.36 + 1) / 4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("pool", [0, -1, 0.0, 1.0, 2.0, -0.5, math.nan, True, None, "half"])
def test_a_bad_pool_is_refused(pool: Any) -> None:
    with pytest.raises(ValueError, match=f"pool.*{pool}"):
        Pairwise(pool=pool)
    with pytest.raises(ValueError, match=f"pool.*{pool}"):
        pairwise(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), pool=pool)
