"""Cross-image relations: values by hand, equality with the literal reference, and bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses import cirkd
from idd_seg.losses.cirkd import CrossImage, cross_image
from tests.losses.reference import log_softmax
from tests.losses.scenes import random_features


def pooled(image: Tensor, pool: int) -> list[list[float]]:
    """Mean vectors of the windows of one image (C, h, w), a window at a time."""
    channels, h, w = image.shape
    vectors = []
    for top in range(0, h, pool):
        for left in range(0, w, pool):
            cells = [(i, j) for i in range(top, min(top + pool, h)) for j in range(left, min(left + pool, w))]
            vectors.append([sum(float(image[c, i, j]) for i, j in cells) / len(cells) for c in range(channels)])
    return vectors


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def reference(student: Tensor, teacher: Tensor, temperature: float, pool: int = 1) -> float:
    ours, theirs = ([pooled(image, pool) for image in side.detach().double()] for side in (student, teacher))
    pairs = []
    for i in range(len(ours)):
        for j in range(len(ours)):
            rows = []
            for p in range(len(ours[i])):
                log_s = log_softmax([cosine(ours[i][p], q) / temperature for q in ours[j]])
                log_t = log_softmax([cosine(theirs[i][p], q) / temperature for q in theirs[j]])
                rows.append(sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True)))
            pairs.append(sum(rows) / len(rows))
    return sum(pairs) / len(pairs)


def line(*vectors: tuple[float, ...]) -> Tensor:
    """A feature map of one row with a vector in each cell, (1, C, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


# The student sees two equal pixels: (1/2, 1/2). The teacher's are at right angles: cosines 1 and 0, at T = 1 / ln 3 the
# probabilities 3/4 and 1/4.
EQUAL, ACROSS = line((1, 0), (2, 0)), line((5, 0), (0, 3))
SHARP = 1 / math.log(3)
BY_HAND = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)


def test_value_by_hand() -> None:
    assert cross_image(EQUAL, ACROSS, temperature=SHARP).item() == pytest.approx(BY_HAND, rel=1e-9)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    loss = cross_image(ACROSS, EQUAL, temperature=SHARP)
    assert loss.item() == pytest.approx(0.5 * math.log(2) - 0.5 * math.log(1.5), rel=1e-9)


def test_every_ordered_pair_counts_once() -> None:
    # Image 0 as above. Image 1 of both networks: two pixels along (1, 0). Pairs (0, 0): BY_HAND in both rows.
    # (0, 1): equal columns, so (1/2, 1/2) on both sides: 0. (1, 0): rows (1, 0) against image 0: BY_HAND. (1, 1): 0.
    student, teacher = torch.cat([EQUAL, EQUAL]), torch.cat([ACROSS, EQUAL])
    assert cross_image(student, teacher, temperature=SHARP).item() == pytest.approx(BY_HAND * 2 / 4, rel=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    temperature=st.sampled_from([0.1, 1.0]),
    pool=st.integers(1, 3),
    entries=st.sampled_from([1, 40, 10**6]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    images: int,
    size: tuple[int, int],
    widths: tuple[int, int],
    temperature: float,
    pool: int,
    entries: int,
    seed: int,
) -> None:
    student, teacher = (random_features(images, width, *size, seed=seed + i) for i, width in enumerate(widths))
    loss = cross_image(student, teacher, temperature=temperature, pool=pool, entries=entries)
    assert loss.item() == pytest.approx(reference(student, teacher, temperature, pool), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("entries", [1, 40, 10**6])
@pytest.mark.parametrize("pool", [1, 2])
def test_gradient_equals_finite_differences(pool: int, entries: int) -> None:
    student, teacher = random_features(2, 3, 2, 3).requires_grad_(), random_features(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(
        lambda x: 5 * cross_image(x, teacher, temperature=0.3, pool=pool, entries=entries), student
    )


@pytest.mark.parametrize("entries", [1, 150, 299, 10**6])
def test_gradient_equals_that_of_autograd(entries: int) -> None:
    """Of the definition written with whole matrices."""
    student, teacher = random_features(3, 4, 2, 5), random_features(3, 6, 2, 5, seed=1)

    def log_rows(x: Tensor) -> Tensor:
        vectors = torch.nn.functional.normalize(x.flatten(2), dim=1)
        return torch.log_softmax(torch.einsum("ncp,mcq->npmq", vectors, vectors) / 0.1, dim=3)

    whole = student.clone().requires_grad_()
    log_s, log_t = log_rows(whole), log_rows(teacher)
    expected = (log_t.exp() * (log_t - log_s)).sum(3).mean()
    expected.backward()
    chunked = student.clone().requires_grad_()
    loss = cross_image(chunked, teacher, temperature=0.1, entries=entries)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(chunked.grad, whole.grad)


@pytest.mark.parametrize("entries", [1, 40, 10**6])
def test_what_is_computed_twice_is_what_was_kept(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    student, teacher = random_features(3, 4, 3, 5, seed=1), random_features(3, 6, 3, 5, seed=2)
    found = []
    for kept in (cirkd.KEPT, 0):
        monkeypatch.setattr(cirkd, "KEPT", kept)
        leaf = student.clone().requires_grad_()
        loss = cross_image(leaf, teacher, temperature=0.1, entries=entries)
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_without_gradients_the_loss_is_the_same() -> None:
    student, teacher = random_features(2, 3, 3, 3), random_features(2, 3, 3, 3, seed=1)
    expected = cross_image(student.clone().requires_grad_(), teacher, temperature=0.1)
    assert expected.requires_grad
    loss = cross_image(student, teacher, temperature=0.1)
    assert not loss.requires_grad
    assert loss.item() == expected.item()


def test_a_second_derivative_is_refused() -> None:
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 2, 2, seed=1)
    with pytest.raises(RuntimeError, match="cross_image can't be differentiated again"):
        torch.autograd.grad(cross_image(student, teacher, temperature=0.1), student, create_graph=True)


def test_the_scale_of_features_does_not_matter() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    expected = cross_image(student, teacher, temperature=0.1)
    torch.testing.assert_close(cross_image(1e-3 * student, 50 * teacher, temperature=0.1), expected)


def test_one_position_teaches_nothing() -> None:
    loss = cross_image(random_features(3, 4, 1, 1), random_features(3, 4, 1, 1, seed=1), temperature=0.1)
    assert loss.item() == 0


def test_pixels_of_zeros_among_others_get_no_gradient() -> None:
    student, teacher = random_features(2, 3, 3, 3), random_features(2, 3, 3, 3, seed=1)
    student[0, :, 1, 1] = 0
    student.requires_grad_()
    loss = cross_image(student, teacher, temperature=0.1)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not student.grad[0, :, 1, 1].any()
    assert student.grad[0, :, 0, 0].any()


MEASURE = """
import resource, torch
from idd_seg.losses import cirkd
from idd_seg.losses.cirkd import cross_image
torch.set_num_threads(2)
student, teacher = torch.randn(2, 512, 64, 64, requires_grad=True), torch.randn(2, 512, 64, 64)
cross_image(student[:, :, :4, :4], teacher[:, :, :4, :4], temperature=0.1).backward()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
cross_image(student, teacher, temperature=0.1).backward()
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_is_bounded_at_8192_positions() -> None:
    """All similarities of both networks, as a loop over pairs keeps them for backward, are 512 MB."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < 400


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        CrossImage(temperature=temperature)


@pytest.mark.parametrize("option", ["pool", "entries"])
@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        CrossImage(**{option: value})
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        cross_image(EQUAL, ACROSS, temperature=1.0, **{option: value})
