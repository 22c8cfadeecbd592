"""Colours that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from idd_seg.ops.colours import DARKEST, LIGHTEST, difference, distinct_colours, lab


def test_known_colours_in_lab() -> None:
    found = lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8))
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(found, expected, atol=0.3)


@pytest.mark.parametrize(("number", "least"), [(8, 60), (20, 35), (35, 25), (150, 12)])
def test_the_nearest_two_are_told_apart(number: int, least: float) -> None:
    colours = np.array(distinct_colours(number), np.uint8)
    apart = difference(colours, colours)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > least
    assert lab(colours)[:, 0].min() >= DARKEST
    assert lab(colours)[:, 0].max() <= LIGHTEST


def test_more_classes_keep_the_colours_of_the_first() -> None:
    assert distinct_colours(30)[:7] == distinct_colours(7)
