"""How a term's weight changes over a run."""

from __future__ import annotations

import math
from typing import Literal, get_args

from idd_seg.ops.validation import require_choice

Decay = Literal["none", "cosine"]


class WeightSchedule:
    """A factor on a term's weight, by optimizer step: rises linearly, stays, falls, ends.

    Args:
        warmup: steps in which the factor rises from 0 to 1; 0 starts at 1.
        decay: `none`, or `cosine`: from the end of the warm-up to step `until` the factor falls to `floor` along half a
            cosine, and stays there.
        until: the step at which `cosine` has fallen; usually the last of the run.
        floor: where `cosine` ends, in 0 to 1.
        stop: from this step on the term is left out altogether, and costs nothing; None never stops.

    Raises:
        ValueError: for an unknown decay, a step below 0, `until` within the warm-up, or a floor outside 0 to 1.
    """

    def __init__(
        self, warmup: int = 0, decay: Decay = "none", until: int = 0, floor: float = 0.0, stop: int | None = None
    ) -> None:
        require_choice("schedule.decay", decay, get_args(Decay))
        if warmup < 0 or (stop is not None and stop < 0):
            raise ValueError(f"schedule.warmup and schedule.stop are steps >= 0, got {warmup} and {stop}")
        if decay == "cosine" and until <= warmup:
            raise ValueError(f"schedule.until={until} must come after schedule.warmup={warmup}")
        if not 0 <= floor <= 1:
            raise ValueError(f"schedule.floor must be in 0 to 1, got {floor}")
        self.warmup, self.decay, self.until, self.floor, self.stop = warmup, decay, until, floor, stop

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 at every step."""
        return self.warmup == 0 and self.decay == "none" and self.stop is None

    @property
    def end(self) -> int | None:
        """The first step from which on the factor stays 0; None where it never does."""
        ends = [] if self.stop is None else [self.stop]
        if self.decay == "cosine" and self.floor == 0:
            ends.append(self.until)
        return min(ends, default=None)

    def factor(self, step: int) -> float:
        """Return the factor at an optimizer step, counted from 0; exactly 0 means that the term is left out."""
        if self.stop is not None and step >= self.stop:
            return 0.0
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.decay == "none":
            return 1.0
        done = min(1.0, (step - self.warmup) / (self.until - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
