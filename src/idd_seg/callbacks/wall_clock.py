"""How long a training has taken, over all its parts."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class WallClock(L.Callback):
    """Counts the seconds since it was made, and those of the parts before, which checkpoints carry.

    What a killed part did after its last checkpoint is not counted: it is done again.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of all parts up to now."""
        return self.before + time.perf_counter() - self.start

    @property
    def state_key(self) -> str:
        # Under the name that the class had when the first checkpoints were written.
        return "Clock"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the time of the parts before."""
        self.before = float(state_dict["seconds"])
