"""Class position distillation: values by hand, equality with the literal reference, and what it is for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.class_position import ClassPosition, class_position
from idd_seg.losses.cwd import channel_wise
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features


def reference(student: Tensor, teacher: Tensor, temperature: float, sigmas: Sequence[float]) -> float:
    n, k, h, w = student.shape
    places = [((i + 0.5) / h, (j + 0.5) / w) for i in range(h) for j in range(w)]
    total = 0.0
    for sigma in sigmas:
        for image in range(n):
            for channel in range(k):
                spread = []
                for logits in (student, teacher):
                    powers = [math.exp(z / temperature) for z in logits[image, channel].flatten().tolist()]
                    spread.append(blurred([power / sum(powers) for power in powers], places, sigma))
                total += sum(t * math.log(t / s) for s, t in zip(*spread, strict=True))
    return temperature**2 * total / (n * k * len(sigmas))


def blurred(mass: list[float], places: list[tuple[float, float]], sigma: float) -> list[float]:
    """What each cell has once every cell has handed its mass out among all, by a Gaussian of their distance."""
    if sigma == 0:
        return mass
    found = [0.0] * len(mass)
    for m, (y, x) in zip(mass, places, strict=True):
        share = [math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2)) for v, u in places]
        for cell, part in enumerate(share):
            found[cell] += m * part / sum(share)
    return found


def one_class(*rows: tuple[float, ...]) -> Tensor:
    """Logits (1, 1, h, w)."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def at(place: int, width: int = 8) -> Tensor:
    """A class that lies in one cell of a row."""
    return one_class(tuple(50.0 if i == place else 0.0 for i in range(width)))


def test_value_by_hand() -> None:
    # Student (1/2, 1/2), teacher (1/4, 3/4). The cells' centres are half a side apart: of a cell's mass, e to its
    # neighbour against 1 for itself, e = exp(-1/2). The student stays even; the teacher has t and 1 - t.
    e = math.exp(-0.5)
    t = (1 / 4 + 3 / 4 * e) / (1 + e)
    by_hand = t * math.log(2 * t) + (1 - t) * math.log(2 * (1 - t))
    loss = class_position(one_class((0, 0)), one_class((0, math.log(3))), temperature=1.0, sigmas=[0.5])
    assert loss.item() == pytest.approx(by_hand, rel=1e-9)


def test_temperature_by_hand() -> None:
    cold = class_position(one_class((0, 0)), one_class((0, math.log(3))), temperature=1.0, sigmas=[0.5])
    warm = class_position(one_class((0, 0)), one_class((0, 4 * math.log(3))), temperature=4.0, sigmas=[0.5])
    assert warm.item() == pytest.approx(16 * cold.item(), rel=1e-9)


def test_is_the_mean_over_the_sigmas() -> None:
    student, teacher = random_features(2, 3, 4, 5), random_features(2, 3, 4, 5, seed=1)
    alone = [class_position(student, teacher, temperature=2.0, sigmas=[s]).item() for s in (0.0, 0.1, 0.4)]
    loss = class_position(student, teacher, temperature=2.0, sigmas=[0.0, 0.1, 0.4])
    assert loss.item() == pytest.approx(sum(alone) / 3, rel=1e-9)
    # The blur takes what is told apart away.
    assert alone == sorted(alone, reverse=True)


def test_without_blur_it_is_channel_wise_distillation_and_a_blur_below_a_cell_changes_nothing() -> None:
    student, teacher = random_features(2, 3, 4, 5), random_features(2, 3, 4, 5, seed=1)
    cwd = channel_wise(student, teacher, temperature=2.0).item()
    assert class_position(student, teacher, temperature=2.0, sigmas=[0.0]).item() == pytest.approx(cwd, rel=1e-12)
    assert class_position(student, teacher, temperature=2.0, sigmas=[1e-3]).item() == pytest.approx(cwd, rel=1e-9)


def test_no_mass_is_lost_at_the_borders() -> None:
    # All of it in a corner, in both networks but for one cell next to it: with a wide blur that is all the same.
    near, far = (
        class_position(at(i), at(0), temperature=1.0, sigmas=[sigma]).item() for i, sigma in ((1, 2.0), (7, 2.0))
    )
    assert 0 < near < far < 0.1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    sigmas=st.lists(st.sampled_from([0.0, 0.03, 0.16, 2.0]), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    shape: tuple[int, int, int, int], temperature: float, sigmas: list[float], seed: int
) -> None:
    student, teacher = 3 * random_features(*shape, seed=seed), 3 * random_features(*shape, seed=seed + 1)
    loss = class_position(student, teacher, temperature=temperature, sigmas=sigmas)
    assert loss.item() == pytest.approx(reference(student, teacher, temperature, sigmas), rel=1e-8, abs=1e-12)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 3).requires_grad_(), random_features(2, 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: class_position(x, teacher, temperature=2.0, sigmas=[0.0, 0.2]), student)


def test_the_farther_off_the_more_it_costs() -> None:
    losses = [class_position(at(i), at(0), temperature=1.0, sigmas=[0.3]).item() for i in range(8)]
    assert losses[0] == pytest.approx(0, abs=1e-12)
    assert losses == sorted(losses)
    # Without a blur a miss is a miss.
    near, far = (class_position(at(i), at(0), temperature=1.0, sigmas=[0.0]).item() for i in (1, 7))
    assert near == pytest.approx(far)


def test_up_and_down_count_as_left_and_right_do() -> None:
    student, teacher = random_features(2, 3, 5, 5), random_features(2, 3, 5, 5, seed=1)
    loss, turned = (
        class_position(s, t, temperature=2.0, sigmas=[0.0, 0.1])
        for s, t in ((student, teacher), (student.mT, teacher.mT))
    )
    assert loss.item() == pytest.approx(turned.item(), rel=1e-9)


def test_a_class_of_one_cell_counts_as_much_as_one_that_covers_half_of_the_picture() -> None:
    large = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    large[..., :4] = 50
    missed = torch.zeros_like(large)
    small = one_class(*[tuple(50.0 if (i, j) == (2, 2) else 0.0 for j in range(8)) for i in range(8)])
    of_small, of_large = (class_position(missed, t, temperature=1.0, sigmas=[0.0, 0.1]).item() for t in (small, large))
    assert of_small > of_large > 0


def test_a_constant_added_to_a_class_changes_nothing() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    shifted = student + torch.tensor([5.0, -3.0, 100.0], dtype=torch.float64)[:, None, None]
    first, second = (class_position(s, teacher, temperature=4.0, sigmas=[0.0, 0.2]).item() for s in (student, shifted))
    assert first == pytest.approx(second, rel=1e-9)


def test_descent_puts_each_class_where_the_teacher_has_it() -> None:
    teacher = 5 * random_features(1, 3, 6, 6, seed=1)
    student = torch.zeros_like(teacher).requires_grad_()
    losses = descend(student, lambda x: class_position(x, teacher, temperature=1.0, sigmas=[0.0, 0.1]), steps=200)
    assert losses[-1] < 0.01 * losses[0]
    assert torch.equal(student.flatten(2).argmax(2), teacher.flatten(2).argmax(2))


def test_under_autocast_the_precision_stays() -> None:
    student, teacher = (random_features(2, 3, 9, 9, seed=i, dtype=torch.float32) for i in (0, 1))
    plain = class_position(student, teacher, temperature=4.0, sigmas=[0.0, 0.16])
    with torch.autocast("cpu", torch.bfloat16):
        found = class_position(student, teacher, temperature=4.0, sigmas=[0.0, 0.16])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain)


def test_measures_how_far_the_centres_lie_apart() -> None:
    batch = Batch(torch.zeros(1, 3, 1, 8), torch.zeros(1, 1, 8, dtype=torch.long), torch.zeros(1, 4), ["x"])
    term = ClassPosition(temperature=1.0)
    found = term.measure(Outputs(at(6), {}), Outputs(at(2), {}), batch)
    assert found["shift"].item() == pytest.approx(0.5, abs=1e-6)
    assert term(Outputs(at(6), {}), Outputs(at(2), {}), batch).item() > 0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"temperature.*{value}"):
        ClassPosition(temperature=value)
    with pytest.raises(ValueError, match=f"temperature.*{value}"):
        class_position(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), temperature=value, sigmas=[0.1])


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_bad_blur_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"sigmas.*{value}"):
        ClassPosition(sigmas=[0.0, value])
    with pytest.raises(ValueError, match=f"sigmas.*{value}"):
        class_position(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), temperature=1.0, sigmas=[0.0, value])


@pytest.mark.parametrize("sigmas", [[], 0.1, "0.1"])
def test_what_is_no_list_of_blurs_is_refused(sigmas: Any) -> None:
    with pytest.raises(ValueError, match="sigmas must be a list of at least one width"):
        ClassPosition(sigmas=sigmas)


def test_a_class_without_mass_where_the_teacher_has_it_keeps_the_gradient_finite() -> None:
    student = at(7).float().mul(100).requires_grad_()
    loss = class_position(student, at(0).float() * 100, temperature=1.0, sigmas=[0.0, 0.05, 0.15])
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 channels.*4"):
        class_position(torch.zeros(1, 3, 1, 1), torch.zeros(1, 4, 1, 1), temperature=1.0, sigmas=[0.0, 0.1])
