"""How long each part may take, so that all of them end in time, and what comes later has a chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CLOSING = 5.0  # seconds that are kept for the end: files, and processes that have to be killed


@dataclass(frozen=True)
class Share:
    """Shares of the limit, 0 to 1: what a part needs at least to be worth its start, and what it takes at most."""

    least: float
    most: float


class Budget:
    """The time of all parts.

    Args:
        limit: seconds, of all together.
        spent: seconds that have passed already.
        clock: seconds, from any moment on.
    """

    def __init__(self, limit: float, spent: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self._end = clock() + limit - spent - CLOSING

    @property
    def left(self) -> float:
        """Seconds that the parts have left, never less than 0."""
        return max(0.0, self._end - self._clock())

    def allowed(self, share: Share, later: Sequence[Share]) -> float | None:
        """Return the seconds that a part may take, or None where it is not worth its start.

        Args:
            later: shares of the parts that come after it; their least is left to them.
        """
        kept = sum(one.least for one in later) * self.limit
        seconds = min(share.most * self.limit, self.left - kept)
        return seconds if seconds >= share.least * self.limit else None
