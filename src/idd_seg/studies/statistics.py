"""Means, spreads and paired differences of a few seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (None of one value) and number."""

    mean: float
    deviation: float | None
    number: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.mean(values), deviation, len(values))

    def half_width(self, level: float = 0.95) -> float | None:
        """Return half the confidence interval of the mean, by Student's t; None of one value."""
        if self.deviation is None:
            return None
        return t_quantile(0.5 + level / 2, self.number - 1) * self.deviation / math.sqrt(self.number)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution, for probabilities from 0.5 to below 1.

    By bisection of the distribution function, whose integral is a finite sum (Abramowitz and Stegun, 26.7.3 and 4).
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _distribution(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _distribution(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    if freedom % 2:
        term, total = cosine, cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        return 0.5 + (angle + math.sin(angle) * total) / math.pi
    term, total = 1.0, 1.0
    for k in range(2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 0.5 + math.sin(angle) * total / 2
