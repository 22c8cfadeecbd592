"""Where masks are wrong, pixel by pixel: of one network, or of two beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.source import UInt8

# Blue and vermilion of Okabe and Ito's colours: people who see red and green alike tell them apart, too.
RIGHT, WRONG, LOST, WON, UNKNOWN = range(5)
COLOURS = ((204, 204, 204), (68, 68, 68), (213, 94, 0), (0, 114, 178), (255, 255, 255))
# What the colours stand for in a map of one network, and in one of two.
OF_ONE = {RIGHT: "right", LOST: "wrong", UNKNOWN: "not labelled"}
OF_TWO = {RIGHT: "right in both", WRONG: "wrong in both", WON: "won", LOST: "lost", UNKNOWN: "not labelled"}


def error_map(truth: NDArray[Any], found: NDArray[Any], number: int, before: NDArray[Any] | None = None) -> UInt8:
    """Return (H, W) of the states above.

    Args:
        truth, found: class ids (H, W); a truth of `number` and above is no class and judges nothing.
        number: of classes.
        before: ids of the network to compare with: a pixel is won where only `found` is right, lost where only it is.
    """
    wrong = found != truth
    if before is None:
        states = np.where(wrong, LOST, RIGHT)
    else:
        other = before != truth
        states = np.select([wrong & other, wrong, other], [WRONG, LOST, WON], RIGHT)
    return np.where((truth >= 0) & (truth < number), states, UNKNOWN).astype(np.uint8)


def coloured(states: UInt8) -> UInt8:
    """(H, W) states -> (H, W, 3) RGB."""
    found: UInt8 = np.array(COLOURS, np.uint8)[states]
    return found


def shares(states: UInt8) -> tuple[float, float]:
    """Return which shares of the labelled pixels were won and lost; in a map of one network the second is the error."""
    counts = np.bincount(states.ravel(), minlength=len(COLOURS))
    known = max(1, int(counts[:UNKNOWN].sum()))
    return float(counts[WON] / known), float(counts[LOST] / known)
