"""Class mass distillation: values by hand, equality with the literal reference, and what it is for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.class_mass import ClassMass, class_mass, log_masses
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features
from tests.losses.test_class_position import blurred


def reference(student: Tensor, teacher: Tensor, sigmas: Sequence[float]) -> float:
    n, k, h, w = student.shape
    places = [((i + 0.5) / h, (j + 0.5) / w) for i in range(h) for j in range(w)]

    def masses(logits: Tensor) -> list[list[list[float]]]:
        """By class and image: the probability of each position, relative to that of all positions of all images."""
        found = []
        for c in range(k):
            images = []
            for image in range(n):
                powers = [[math.exp(z) for z in row] for row in logits[image].flatten(1).T.tolist()]
                images.append([row[c] / sum(row) for row in powers])
            whole = sum(sum(image) for image in images)
            found.append([[p / whole for p in image] for image in images])
        return found

    total = 0.0
    ours, theirs = masses(student), masses(teacher)
    for sigma in sigmas:
        for c in range(k):
            for image in range(n):
                s, t = (blurred(side[c][image], places, sigma) for side in (ours, theirs))
                total += sum(b * math.log(b / a) for a, b in zip(s, t, strict=True))
    return total / (k * len(sigmas))


def logits_of(*probabilities: Sequence[float]) -> Tensor:
    """Logits (1, K, 1, w) of positions that are given by their probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None, :]


def test_value_by_hand() -> None:
    # Class 0: of the student's mass 1/2 + 1/4 there are 2/3 and 1/3, of the teacher's 1/5 + 3/5 there are 1/4 and 3/4.
    student, teacher = logits_of((0.5, 0.5), (0.25, 0.75)), logits_of((0.2, 0.8), (0.6, 0.4))
    first = 1 / 4 * math.log((1 / 4) / (2 / 3)) + 3 / 4 * math.log((3 / 4) / (1 / 3))
    # Class 1: 1/2 + 3/4 and 4/5 + 2/5.
    second = 2 / 3 * math.log((2 / 3) / (2 / 5)) + 1 / 3 * math.log((1 / 3) / (3 / 5))
    loss = class_mass(student, teacher, sigmas=[0.0])
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    sigmas=st.lists(st.sampled_from([0.0, 0.03, 0.16, 2.0]), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(shape: tuple[int, int, int, int], sigmas: list[float], seed: int) -> None:
    student, teacher = 3 * random_features(*shape, seed=seed), 3 * random_features(*shape, seed=seed + 1)
    loss = class_mass(student, teacher, sigmas=sigmas)
    assert loss.item() == pytest.approx(reference(student, teacher, sigmas), rel=1e-8, abs=1e-12)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 3).requires_grad_(), random_features(2, 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: class_mass(x, teacher, sigmas=[0.0, 0.2]), student)


def test_is_the_mean_over_the_sigmas_and_a_blur_takes_away() -> None:
    student, teacher = random_features(2, 3, 4, 5), random_features(2, 3, 4, 5, seed=1)
    alone = [class_mass(student, teacher, sigmas=[s]).item() for s in (0.0, 0.1, 0.4)]
    assert class_mass(student, teacher, sigmas=[0.0, 0.1, 0.4]).item() == pytest.approx(sum(alone) / 3, rel=1e-9)
    assert alone == sorted(alone, reverse=True)


def test_each_class_has_mass_1_in_the_whole_batch() -> None:
    masses = log_masses(3 * random_features(3, 4, 5, 6)).exp()
    torch.testing.assert_close(masses.sum((0, 2, 3)), torch.ones(4, dtype=torch.float64))


def placed(logit: float) -> Tensor:
    """A class 0 against a class 1 of logit 0, a little more in one of eight cells, and rare everywhere."""
    first = torch.full((8,), logit, dtype=torch.float64)
    first[2] += 2
    return torch.stack([first, torch.zeros(8, dtype=torch.float64)])[None, :, None, :]


def test_how_much_mass_there_is_does_not_matter() -> None:
    """A class that the student hardly believes in is pulled as strongly to its places."""
    pulls = []
    for logit in (-6.0, -12.0):
        student = torch.zeros(1, 2, 1, 8, dtype=torch.float64)
        student[:, 0] = logit
        student.requires_grad_()
        loss = class_mass(student, placed(-1.0), sigmas=[0.0])
        (slope,) = torch.autograd.grad(loss, student)
        pulls.append(float(slope[0, 0].abs().max()))
    assert pulls[0] == pytest.approx(pulls[1], rel=0.02)
    assert pulls[0] > 0.05


def test_an_image_without_a_class_asks_for_nothing() -> None:
    """Of its own distribution there every cell would count; here there is no mass to place."""
    teacher = torch.cat([placed(-1.0), placed(-1.0)])
    teacher[1, 0] = torch.linspace(-40, -30, 8)
    student = torch.cat([placed(-1.0), placed(-1.0)])
    student[1, 0] = torch.linspace(-30, -40, 8)
    assert class_mass(student, teacher, sigmas=[0.0, 0.1]).item() == pytest.approx(0, abs=1e-9)


def test_descent_finds_the_teachers_places() -> None:
    teacher = 5 * random_features(2, 3, 6, 6, seed=1)
    student = torch.zeros_like(teacher).requires_grad_()
    losses = descend(student, lambda x: class_mass(x, teacher, sigmas=[0.0, 0.1]), steps=200)
    assert losses[-1] < 0.05 * losses[0]


def test_equal_networks_cost_nothing_and_others_do() -> None:
    x = random_features(2, 3, 4, 4)
    assert class_mass(x, x, sigmas=[0.0, 0.2]).item() == pytest.approx(0, abs=1e-12)
    assert class_mass(x, x.flip(3), sigmas=[0.0, 0.2]).item() > 0.01


def test_under_autocast_the_precision_stays() -> None:
    student, teacher = (random_features(2, 3, 9, 9, seed=i, dtype=torch.float32) for i in (0, 1))
    plain = class_mass(student, teacher, sigmas=[0.0, 0.16])
    with torch.autocast("cpu", torch.bfloat16):
        found = class_mass(student, teacher, sigmas=[0.0, 0.16])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain)


def test_extreme_logits_keep_value_and_gradient_finite() -> None:
    student = (200 * random_features(2, 3, 4, 4)).float().requires_grad_()
    loss = class_mass(student, (200 * random_features(2, 3, 4, 4, seed=1)).float(), sigmas=[0.0, 0.05, 0.15])
    (slope,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()


def test_measures_the_share_that_lies_elsewhere() -> None:
    batch = Batch(torch.zeros(1, 3, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long), torch.zeros(1, 4), ["x"])
    term, sure = ClassMass(), 1 - 1e-9
    left, right = logits_of((sure, 1 - sure), (1 - sure, sure)), logits_of((1 - sure, sure), (sure, 1 - sure))
    assert term.measure(Outputs(left, {}), Outputs(right, {}), batch)["elsewhere"].item() == pytest.approx(1)
    assert term.measure(Outputs(left, {}), Outputs(left, {}), batch)["elsewhere"].item() == 0
    assert term(Outputs(left, {}), Outputs(right, {}), batch).item() > 0


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_bad_blur_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"sigmas.*{value}"):
        ClassMass(sigmas=[0.0, value])
    with pytest.raises(ValueError, match=f"sigmas.*{value}"):
        class_mass(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), sigmas=[value])


@pytest.mark.parametrize("sigmas", [[], 0.1, "0.1"])
def test_what_is_no_list_of_blurs_is_refused(sigmas: Any) -> None:
    with pytest.raises(ValueError, match="sigmas must be a list of at least one width"):
        ClassMass(sigmas=sigmas)


def test_other_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="the student has 3 channels, the teacher 4"):
        class_mass(torch.zeros(1, 3, 1, 1), torch.zeros(1, 4, 1, 1), sigmas=[0.0])
