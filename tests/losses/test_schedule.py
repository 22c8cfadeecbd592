"""Weights over a run: values by hand, bounds, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idd_seg.losses.kd import PixelWise
from idd_seg.losses.schedule import WeightSchedule


def test_it_is_constant_as_it_stands() -> None:
    schedule = WeightSchedule()
    assert schedule.constant
    assert {schedule.factor(step) for step in (0, 1, 10**6)} == {1.0}


def test_warm_up_rises_in_equal_steps_to_one() -> None:
    schedule = WeightSchedule(warmup=3)
    assert [schedule.factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert not schedule.constant


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_floor() -> None:
    schedule = WeightSchedule(warmup=2, decay="cosine", until=6, floor=0.2)
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * x / 4)) / 2 for x in range(5)]
    assert [schedule.factor(step) for step in range(2, 7)] == pytest.approx(expected)
    assert schedule.factor(4) == pytest.approx(0.6)
    assert schedule.factor(7) == schedule.factor(1000) == pytest.approx(0.2)


def test_stop_leaves_the_term_out() -> None:
    schedule = WeightSchedule(stop=4)
    assert [schedule.factor(step) for step in (3, 4, 5)] == [1.0, 0.0, 0.0]


def test_a_terms_weight_is_multiplied() -> None:
    assert PixelWise(weight=8.0, schedule=WeightSchedule(warmup=3)).weight_at(1) == 4.0


@given(
    st.integers(0, 50),
    st.sampled_from(["none", "cosine"]),
    st.integers(51, 200),
    st.floats(0, 1),
    st.none() | st.integers(0, 300),
    st.integers(0, 400),
)
def test_factors_lie_in_zero_to_one(
    warmup: int, decay: str, until: int, floor: float, stop: int | None, step: int
) -> None:
    assert 0 <= WeightSchedule(warmup, decay, until, floor, stop).factor(step) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": "linear"}, "schedule.decay must be one of none, cosine, got 'linear'"),
        ({"warmup": -1}, "steps >= 0"),
        ({"stop": -1}, "steps >= 0"),
        ({"decay": "cosine", "warmup": 5, "until": 5}, "schedule.until=5 must come after schedule.warmup=5"),
        ({"floor": 1.5}, "floor must be in 0 to 1, got 1.5"),
    ],
)
def test_bad_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightSchedule(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, None),
        ({"warmup": 5}, None),
        ({"stop": 4}, 4),
        ({"decay": "cosine", "until": 9}, 9),
        ({"decay": "cosine", "until": 9, "floor": 0.1}, None),
        ({"decay": "cosine", "until": 9, "floor": 0.1, "stop": 12}, 12),
        ({"decay": "cosine", "until": 9, "stop": 3}, 3),
        ({"decay": "cosine", "until": 9, "stop": 12}, 9),
    ],
)
def test_the_end_is_the_first_step_from_which_on_nothing_is_left(options: dict[str, Any], end: int | None) -> None:
    schedule = WeightSchedule(**options)
    assert schedule.end == end
    steps = range(20)
    assert all((schedule.factor(step) == 0) is (end is not None and step >= end) for step in steps)
