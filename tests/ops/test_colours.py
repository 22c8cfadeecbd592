"""Colours that can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from idd_seg.ops.colours import DARKEST, IGNORED, LIGHTEST, bit_colour, ciede2000, difference, distinct_colours, lab

# Pairs of Sharma, Wu and Dalal (2005), table 1: those that an error in the hue, in its mean or in the rotation breaks.
SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0009), 7.1792),
    ((50, 2.4900, -0.0010), (50, -2.4900, 0.0011), 7.2195),
    ((50, -0.0010, 2.4900), (50, 0.0009, -2.4900), 4.8045),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


def least(colours: list[list[int]]) -> float:
    """The difference of the two that look most alike."""
    found: NDArray[np.float64] = difference(*2 * [np.array(colours, np.uint8)])
    np.fill_diagonal(found, np.inf)
    return float(found.min())


def test_known_colours_in_lab() -> None:
    found = lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8))
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(found, expected, atol=0.3)


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_the_difference_is_that_of_the_published_pairs(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)
    assert ciede2000(np.array(second), np.array(first)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("number", "apart"), [(4, 40), (8, 30), (12, 25), (20, 20), (40, 15), (150, 8)])
def test_the_nearest_two_are_told_apart(number: int, apart: float) -> None:
    colours = distinct_colours(number)
    assert least(colours) > apart
    light = lab(np.array(colours, np.uint8))[:, 0]
    assert light.min() >= DARKEST
    assert light.max() <= LIGHTEST
    assert difference(np.array(colours, np.uint8), np.array([IGNORED])).min() > 12  # what is no class is white


def test_more_classes_keep_the_colours_of_the_first() -> None:
    assert distinct_colours(30)[:7] == distinct_colours(7)


def test_the_bits_of_the_index_make_worse_colours() -> None:
    """Pascal VOC's own: what classes without a colour had before."""
    assert least([bit_colour(index + 1) for index in range(20)]) < 5


def test_the_generated_scenes_have_colours_that_can_be_told_apart() -> None:
    path = Path(__file__).parents[2] / "conf" / "data" / "shapes.yaml"
    assert least(yaml.safe_load(path.read_text())["palette"]) > 18
