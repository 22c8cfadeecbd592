"""Colours that can be told apart, for classes that have none of their own."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

STEPS = 12  # of each channel, of which colours are chosen
DARKEST, LIGHTEST = 25.0, 92.0  # lightness in CIELAB: neither black nor white, which pictures are full of


def lab(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return sRGB colours (N, 3), 0 to 255, in CIELAB (D65): lightness 0 to 100, a and b."""
    found: NDArray[np.float32] = cv2.cvtColor((colours[None] / 255.0).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    return found


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how different colours (N, 3) and (M, 3) look: (N, M) distances in CIELAB (CIE76); 2.3 is just seen."""
    found: NDArray[np.float32] = np.linalg.norm(lab(first)[:, None] - lab(second)[None], axis=-1)
    return found


@cache
def _candidates() -> NDArray[np.uint8]:
    channel = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    every = np.stack(np.meshgrid(channel, channel, channel, indexing="ij"), -1).reshape(-1, 3)
    lightness = lab(every)[:, 0]
    return every[(lightness >= DARKEST) & (lightness <= LIGHTEST)]


def distinct_colours(number: int) -> list[list[int]]:
    """Return so many RGB colours, each as far as can be from all before it; the same ones every time.

    Farthest points of a grid of sRGB colours in CIELAB, from a strong blue on: the first K are those of K classes.
    """
    candidates = _candidates()
    places = [int(np.argmin(np.linalg.norm(candidates.astype(float) - (46, 93, 209), axis=1)))]
    nearest = difference(candidates, candidates[places])[:, 0]
    while len(places) < number:
        places.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, difference(candidates, candidates[places[-1:]])[:, 0])
    return [[int(value) for value in candidates[place]] for place in places[:number]]
