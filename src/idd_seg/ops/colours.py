"""Colours that can be told apart, for classes that have none of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

STEPS = 12  # of each channel, of which colours are chosen
DARKEST, LIGHTEST = 25.0, 92.0  # lightness in CIELAB: neither black nor white, which pictures are full of
FIRST = (46, 93, 209)  # a strong blue
IGNORED = (255, 255, 255)  # what is no class is drawn white

Values = NDArray[np.float64]


def lab(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return sRGB colours (N, 3), 0 to 255, in CIELAB (D65): lightness 0 to 100, a and b."""
    found: NDArray[np.float32] = cv2.cvtColor((colours[None] / 255.0).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    return found


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Values:
    """Return how different sRGB colours (N, 3) and (M, 3) look: (N, M), in CIEDE2000; 1 is just seen."""
    return ciede2000(lab(first)[:, None], lab(second)[None])


def ciede2000(first: NDArray[np.floating], second: NDArray[np.floating]) -> Values:
    """Return the colour difference CIEDE2000 of CIELAB values (..., 3), whose leading axes broadcast.

    Formulas and the pairs of the test: Sharma, Wu, Dalal, "The CIEDE2000 Color-Difference Formula", Color Research and
    Application 30 (2005), equations 2 to 22, all weights 1.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(v, np.float64), -1, 0) for v in (first, second))
    stretch = 1.5 - 0.5 * _share((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0  # has no hue
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    # The hue half way, on the shorter arc.
    hue = np.where(grey, h1 + h2, (h1 + turn / 2) % 360)
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * _cos(hue - 30)
        + 0.24 * _cos(2 * hue)
        + 0.32 * _cos(3 * hue + 6)
        - 0.20 * _cos(4 * hue - 63)
    )  # fmt: skip
    of_light = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    of_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    of_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    rotation = -2 * _share(chroma) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    squares = of_light**2 + of_chroma**2 + of_hue**2 + rotation * of_chroma * of_hue
    found: Values = np.sqrt(np.maximum(0, squares))
    return found


def _share(chroma: Values) -> Values:
    found: Values = np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    return found


def _cos(degrees: Values) -> Values:
    found: Values = np.cos(np.radians(degrees))
    return found


@cache
def _candidates() -> NDArray[np.uint8]:
    channel = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    every = np.stack(np.meshgrid(channel, channel, channel, indexing="ij"), -1).reshape(-1, 3)
    lightness = lab(every)[:, 0]
    return every[(lightness >= DARKEST) & (lightness <= LIGHTEST)]


def distinct_colours(number: int, taken: Sequence[Sequence[int]] = ()) -> list[list[int]]:
    """Return so many RGB colours, each as far as can be from all before it; the same ones every time.

    Farthest points of a grid of sRGB colours by CIEDE2000, from a strong blue on: the first K are those of K classes.

    Args:
        taken: colours that others have, from which these keep away too.
    """
    return [list(colour) for colour in _farthest(number, tuple(tuple(colour) for colour in taken))]


@lru_cache(maxsize=16)
def _farthest(number: int, taken: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    candidates = _candidates()
    nearest = difference(candidates, np.array([IGNORED, *taken], np.uint8)).min(1)
    blue = int(np.linalg.norm(candidates.astype(float) - FIRST, axis=1).argmin())
    places: list[int] = []
    while len(places) < number:
        places.append(int(nearest.argmax()) if places or taken else blue)
        nearest = np.minimum(nearest, difference(candidates, candidates[places[-1:]])[:, 0])
    return tuple(tuple(int(value) for value in candidates[place]) for place in places)


def bit_colour(index: int) -> list[int]:
    """Return colour `index` of Pascal VOC's palette: the bits of the index, dealt out to the channels in turn."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> channel) & 1) << (7 - place)
        index >>= 3
    return channels
