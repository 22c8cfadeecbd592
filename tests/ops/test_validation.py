"""Ranges of options: what passes, and what a message names."""

from __future__ import annotations

import math
from typing import Any

import pytest

from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_above, require_at_least, require_choice, require_whole


@pytest.mark.parametrize("value", [1, 2, 10**9])
def test_whole_numbers(value: int) -> None:
    require_whole("every", value, 1)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, math.nan])
def test_what_is_no_whole_number_in_range(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"every must be a whole number >= 1, got '{value}'"):
        require_whole("every", value, 1)


def test_a_largest_number_and_another_error() -> None:
    require_whole("workers", 256, 1, 256)
    with pytest.raises(ConfigError, match="workers must be a whole number from 1 to 256, got '257'"):
        require_whole("workers", 257, 1, 256, error=ConfigError)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_numbers_from_a_bound_on(value: float) -> None:
    require_at_least("weight", 0, 0)
    with pytest.raises(ValueError, match=f"weight must be a finite number >= 0, got {value}"):
        require_at_least("weight", value, 0)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_numbers_above_a_bound(value: float) -> None:
    require_above("lr", 1e-9, 0)
    with pytest.raises(ValueError, match=f"lr must be > 0 and finite, got {value}"):
        require_above("lr", value, 0)


@pytest.mark.parametrize("require", [require_above, require_at_least])
def test_a_word_for_a_number_is_not_taken(require: Any) -> None:
    with pytest.raises(TypeError):
        require("weight", "x", 0)


def test_choices() -> None:
    require_choice("mode", "whole", ("whole", "slide"))
    with pytest.raises(ValueError, match="mode must be one of whole, slide, got 'slides'"):
        require_choice("mode", "slides", ("whole", "slide"))
