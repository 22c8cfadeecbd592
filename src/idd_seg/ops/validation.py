"""Ranges of options, which constructors check: each error names the option, what is allowed, and the value.

Types are compared with the signatures before (`config/option_types.py`); who calls a constructor in Python and gives a
word for a number gets a TypeError from the comparison here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def require_whole(
    name: str, value: object, least: int, most: int | None = None, *, error: type[Exception] = ValueError
) -> None:
    """Raise an `error` unless `value` is a whole number >= `least`, and <= `most` if that is given."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        allowed = f">= {least}" if most is None else f"from {least} to {most}"
        raise error(f"{name} must be a whole number {allowed}, got '{value}'")


def require_at_least(name: str, value: float, least: float, *, error: type[Exception] = ValueError) -> None:
    """Raise an `error` unless `value` is finite and >= `least`."""
    if not least <= value < math.inf:
        raise error(f"{name} must be a finite number >= {least}, got {value}")


def require_above(name: str, value: float, bound: float, *, error: type[Exception] = ValueError) -> None:
    """Raise an `error` unless `value` is finite and > `bound`."""
    if not bound < value < math.inf:
        raise error(f"{name} must be > {bound} and finite, got {value}")


def require_choice(name: str, value: str, allowed: Sequence[str], *, error: type[Exception] = ValueError) -> None:
    """Raise an `error` unless `value` is one of the words that are allowed."""
    if value not in allowed:
        raise error(f"{name} must be one of {', '.join(allowed)}, got '{value}'")
