"""The forms of the class distance: lifted, one-sided, Gaussian, and of every pixel to all classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from idd_seg.losses.idd import InterClassDistance, inter_class_distance, pixel_class_distance
from idd_seg.losses.ops.adapters import Adapter
from tests.losses import reference
from tests.losses.scenes import (
    batch_of,
    descend,
    is_zero_with_gradient,
    outputs_of,
    random_features,
    random_labels,
)


def line(*vectors: tuple[float, ...]) -> Tensor:
    """A feature map of one row with a vector in each cell, (1, C, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


# Edges of the student 0-1: 5, 0-2: 8, 1-2: 5 (mean 6); of the teacher 2, 6, 4 (mean 4).
STUDENT = line((0, 0), (3, 4), (0, 8))
TEACHER = line((0,), (2,), (6,))
THREE = torch.tensor([[[0, 1, 2]]])


# One side.


@pytest.mark.parametrize(
    ("normalize", "expected"),
    # Raw, all of the student's are longer. Relative 5/6, 8/6, 5/6 against 1/2, 3/2, 1: shorter by 1/6 twice.
    [("none", 0.0), ("mean", 2 / 36 / 3)],
)
def test_only_pairs_that_are_closer_count(normalize: str, expected: float) -> None:
    loss = inter_class_distance(STUDENT, TEACHER, THREE, 3, normalize=normalize, side="near")
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_two_sides_make_the_whole() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 5, 4, 4, seed=1)
    labels = random_labels(2, 8, 8, num_classes=5)
    near = inter_class_distance(student, teacher, labels, 5, side="near", normalize="none")
    far = inter_class_distance(teacher, student, labels, 5, side="near", normalize="none")
    torch.testing.assert_close(near + far, inter_class_distance(student, teacher, labels, 5, normalize="none"))
    assert min(near.item(), far.item()) > 0


def test_a_far_pair_gets_no_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    assert is_zero_with_gradient(
        inter_class_distance(student, TEACHER, THREE, 3, normalize="none", side="near"), student
    )


# A Gaussian of the distance.


@pytest.mark.parametrize("sigma", [None, 0.5, 3.0])
@pytest.mark.parametrize("normalize", ["mean", "none"])
def test_a_gaussian_by_hand(sigma: float | None, normalize: str) -> None:
    divisors = (6, 4) if normalize == "mean" else (1, 1)
    kernels = [
        [1 - math.exp(-((edge / divisor) ** 2) / (2 * (sigma or 1.0) ** 2)) for edge in edges]
        for edges, divisor in zip(((5, 8, 5), (2, 6, 4)), divisors, strict=True)
    ]
    expected = sum((a - b) ** 2 for a, b in zip(*kernels, strict=True)) / 3
    loss = inter_class_distance(STUDENT, TEACHER, THREE, 3, distance="gaussian", sigma=sigma, normalize=normalize)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "options", [{"distance": "gaussian"}, {"side": "near"}, {"distance": "cosine", "side": "near"}]
)
def test_gradients_equal_finite_differences(options: dict[str, str]) -> None:
    labels = random_labels(2, 6, 6, num_classes=4)
    student, teacher = random_features(2, 3, 3, 4).requires_grad_(), random_features(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: inter_class_distance(x, teacher, labels, 4, **options), student)


# A lift.


def test_a_lift_of_the_means_is_one_of_the_map() -> None:
    torch.manual_seed(0)
    lift, labels = Adapter(3, 5).double(), random_labels(2, 8, 8, num_classes=5)
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 5, 4, 4, seed=1)
    for resize in ("nearest", "area"):
        options: dict[str, Any] = {"normalize": "none", "resize": resize, "min_pixels": 0.1}
        found = inter_class_distance(student, teacher, labels, 5, lift=lift, **options)
        torch.testing.assert_close(found, inter_class_distance(lift(student), teacher, labels, 5, **options))


@pytest.mark.parametrize("level", ["classes", "pixels"])
@pytest.mark.parametrize("memory", [None, 0.5])
def test_the_lift_is_trained_with_the_student(level: str, memory: float | None) -> None:
    torch.manual_seed(0)
    term = InterClassDistance(4, lift=True, normalize="none", scope="batch", level=level, memory=memory)  # type: ignore[arg-type]
    term.bind({"head": 3}, {"head": 5})
    assert sum(p.numel() for p in term.parameters()) == 3 * 5 + 5
    assert isinstance(term.lifts["head"], Adapter)
    x = random_features(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    y = random_features(2, 5, 4, 4, seed=1, dtype=torch.float32)
    batch, teacher = batch_of(random_labels(2, 8, 8, num_classes=4)), outputs_of(y, head=y)
    losses = descend(x, lambda f: term(outputs_of(f, head=f), teacher, batch), 60, 0.05, others=term.parameters())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None for p in term.parameters())


def test_without_a_lift_there_is_nothing_to_train() -> None:
    term = InterClassDistance(4, level="pixels")
    term.bind({"head": 3}, {"head": 5})
    assert not list(term.parameters())


# Pixels.


def test_pixels_by_hand() -> None:
    # A pixel a class: distances are the edges, of the pixel's own class 0.
    loss = pixel_class_distance(STUDENT, TEACHER, THREE, 3, temperature=0.5)
    ours, theirs = ([0, 5, 8], [5, 0, 5], [8, 5, 0]), ([0, 2, 6], [2, 0, 4], [6, 4, 0])
    total = 0.0
    for s, t in zip(ours, theirs, strict=True):
        log_s, log_t = reference.log_softmax([-v / 3 for v in s]), reference.log_softmax([-v / 2 for v in t])
        total += sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True))
    assert loss.item() == pytest.approx(total / 3, rel=1e-9)


def apart(a: list[float], b: list[float], distance: str) -> float:
    if distance == "cosine":
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    return math.dist(a, b) ** (2 if distance == "squared" else 1)


def pixel_reference(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    normalize: str,
    scope: str,
    distance: str,
    temperature: float,
    resize: str = "nearest",
) -> float:
    n, _, h, w = student.shape
    height, width = labels.shape[1:]
    graphs = [reference.class_means(x, labels, num_classes, scope=scope, resize=resize)[0] for x in (student, teacher)]
    pixels = reference.class_means(student, labels, num_classes, scope=scope, resize=resize)[1]
    losses = []
    for i in range(n):
        graph = i if scope == "image" else 0
        there = sorted(k for k, count in pixels[graph].items() if count >= 0.9)
        if len(there) < 2:
            continue
        for row in range(h):
            for column in range(w):
                if not 0 <= labels[i, row * height // h, column * width // w] < num_classes:
                    continue
                logs = []
                for x, means in zip((student, teacher), graphs, strict=True):
                    nodes = [means[graph][k] for k in there]
                    edges = [apart(a, b, distance) for j, a in enumerate(nodes) for b in nodes[:j]]
                    unit = sum(edges) / len(edges) if normalize == "mean" else 1.0
                    own = x[i, :, row, column].tolist()
                    logs.append(reference.log_softmax([-apart(own, k, distance) / unit / temperature for k in nodes]))
                losses.append(sum(math.exp(t) * (t - s) for s, t in zip(*logs, strict=True)))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    normalize=st.sampled_from(["mean", "none"]),
    scope=st.sampled_from(["image", "batch", "world"]),
    distance=st.sampled_from(["euclidean", "squared", "cosine"]),
    resize=st.sampled_from(["nearest", "area"]),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    num_classes=st.sampled_from([1, 2, 4, 40]),
    seed=st.integers(0, 999),
)
def test_pixels_equal_the_literal_reference(
    normalize: str, scope: str, distance: str, resize: str, grid: tuple[int, int], num_classes: int, seed: int
) -> None:
    student, teacher = random_features(2, 3, *grid, seed=seed), random_features(2, 5, *grid, seed=seed + 1)
    labels = random_labels(2, 2 * grid[0], 3 * grid[1], num_classes=num_classes, seed=seed, stray=(255, 41, -1))
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "distance": distance, "temperature": 0.7}
    loss = pixel_class_distance(student, teacher, labels, num_classes, resize=resize, min_pixels=0.9, **options)
    expected = pixel_reference(student, teacher, labels, num_classes, resize=resize, **options)
    # A cell that is its class's mean is at distance 0, of which an inner product keeps the root of its rounding.
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_gradients_at_pixels_equal_finite_differences(layout: torch.memory_format, distance: str, scope: str) -> None:
    student = random_features(2, 3, 3, 4).to(memory_format=layout).requires_grad_()
    teacher = random_features(2, 2, 2, 3, seed=1)
    # Three cells of each class at least: a cell alone is its class's mean, where the distance has no gradient.
    labels = torch.arange(24).view(2, 3, 4) % 4 % 3
    assert torch.autograd.gradcheck(
        lambda x: pixel_class_distance(x, teacher, labels, 3, distance=distance, scope=scope), student
    )


@pytest.mark.parametrize("scale", [1e-2, 30.0])
def test_the_mean_takes_the_scale_away_and_raw_distances_keep_it(scale: float) -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 5, 4, 4, seed=1)
    labels = random_labels(2, 8, 8, num_classes=5)
    expected = pixel_class_distance(student, teacher, labels, 5)
    torch.testing.assert_close(pixel_class_distance(scale * student, teacher, labels, 5), expected)
    torch.testing.assert_close(pixel_class_distance(student, scale * teacher, labels, 5), expected)
    raw = [
        pixel_class_distance(f * student, f * teacher, labels, 5, normalize="none", temperature=f) for f in (1, scale)
    ]
    torch.testing.assert_close(raw[0], raw[1])


@pytest.mark.parametrize("size", [(2, 3), (7, 9)])
def test_a_teacher_of_another_grid_is_resized(size: tuple[int, int]) -> None:
    student, teacher = random_features(2, 3, 4, 6), random_features(2, 3, *size, seed=1)
    labels = random_labels(2, 8, 12, num_classes=4)
    resized = nn.functional.interpolate(teacher, size=(4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        pixel_class_distance(student, teacher, labels, 4), pixel_class_distance(student, resized, labels, 4)
    )


def test_identical_maps_cost_nothing_and_ignored_pixels_take_no_part() -> None:
    student, teacher = random_features(1, 3, 2, 6), random_features(1, 3, 2, 6, seed=1)
    labels = random_labels(1, 2, 6, num_classes=3, stray=(0,))
    labels[..., 4:] = 255
    assert pixel_class_distance(student, student, labels, 3).item() == 0
    cut = pixel_class_distance(student[..., :4], teacher[..., :4], labels[..., :4], 3)
    torch.testing.assert_close(pixel_class_distance(student, teacher, labels, 3), cut)


@pytest.mark.parametrize("only", [0, 19, 255])
@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_fewer_than_two_classes_cost_exactly_zero(only: int, scope: str, distance: str) -> None:
    student, labels = random_features(2, 3, 4, 4).requires_grad_(), torch.full((2, 4, 4), only)
    teacher = random_features(2, 3, 4, 4, seed=1)
    loss = pixel_class_distance(student, teacher, labels, 19, scope=scope, distance=distance)
    assert is_zero_with_gradient(loss, student)


@pytest.mark.parametrize("student", [torch.full((1, 2, 1, 3), 0.7), torch.zeros(1, 2, 1, 3)], ids=["equal", "zero"])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_of_zero_have_finite_gradients(student: Tensor, distance: str, dtype: torch.dtype) -> None:
    leaf = student.to(dtype).clone().requires_grad_()
    loss = pixel_class_distance(leaf, TEACHER.to(dtype), THREE, 3, distance=distance)
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (random_features(2, 16, 4, 4, seed=seed, dtype=dtype) for seed in (0, 1))
    labels = random_labels(2, 8, 8, num_classes=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pixel_class_distance(student, teacher, labels, 4)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        pixel_class_distance(student.double(), teacher.double(), labels, 4).item(), rel=1e-4
    )


def test_memory_stands_in_for_a_class_that_is_absent_now() -> None:
    """Class 2 was seen a step ago, at (0, 8) and 6, and is no part of this picture."""
    term = InterClassDistance(3, level="pixels", temperature=0.5, memory=0.5, scope="batch")
    term.bind({"head": 2}, {"head": 1})
    seen = line((0, 8)), line((6,))
    batch = batch_of(torch.tensor([[[2]]]))
    assert term(outputs_of(seen[0], head=seen[0]), outputs_of(seen[1], head=seen[1]), batch).item() == 0
    now = STUDENT[..., :2], TEACHER[..., :2]
    loss = term(outputs_of(now[0], head=now[0]), outputs_of(now[1], head=now[1]), batch_of(torch.tensor([[[0, 1]]])))
    total = 0.0
    for s, t in zip(([0, 5, 8], [5, 0, 5]), ([0, 2, 6], [2, 0, 4]), strict=True):
        log_s, log_t = reference.log_softmax([-v / 3 for v in s]), reference.log_softmax([-v / 2 for v in t])
        total += sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True))
    assert loss.item() == pytest.approx(total / 2, rel=1e-6)


def test_the_term_takes_the_mean_over_its_maps_and_measures() -> None:
    term = InterClassDistance(4, level="pixels", taps=["stage4", "head"], scope="world", temperature=0.3)
    term.bind({"stage4": 3, "head": 3}, {"stage4": 3, "head": 3})
    maps = [random_features(2, 3, 4, 4, seed=seed) for seed in range(4)]
    student, teacher = (
        outputs_of(maps[0], stage4=maps[0], head=maps[1]),
        outputs_of(maps[2], stage4=maps[2], head=maps[3]),
    )
    batch = batch_of(random_labels(2, 8, 8, num_classes=4))
    parts = [
        pixel_class_distance(maps[i], maps[i + 2], batch.label, 4, scope="batch", temperature=0.3) for i in range(2)
    ]
    torch.testing.assert_close(term(student, teacher, batch), torch.stack(parts).mean())
    torch.testing.assert_close(term.measure(student, teacher, batch)["distance"], torch.stack(parts).mean())
    assert term.label_use == "classes"


# What makes no sense together.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "pixels", "side": "near"}, "side=near .* leave it both"),
        ({"level": "pixels", "reduction": "sum"}, "reduction=sum .* leave it mean"),
        ({"level": "pixels", "distance": "gaussian"}, "distance=squared, temperature"),
        ({"sigma": 2.0}, "sigma=2.0 .*distance=euclidean leave it null"),
        ({"temperature": 0.5}, "temperature=0.5 .*level=classes leave it null"),
        ({"lift": True, "taps": ["head", "logits"]}, "lift .* logits .* leave them out of taps"),
        ({"side": "far"}, "side.*both, near.*'far'"),
        ({"level": "images"}, "level.*classes, pixels.*'images'"),
        ({"distance": "gaussian", "sigma": 0.0}, "sigma.*0"),
        ({"level": "pixels", "temperature": -1.0}, "temperature.*-1"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterClassDistance(3, **options)
