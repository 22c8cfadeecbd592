"""When the teacher is asked: at every so many steps, and between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from idd_seg.errors import ConfigError


@dataclass(frozen=True)
class TeacherTimes:
    """The optimizer steps, counted from 0, at which the teacher is asked; the terms that need it rest at the others.

    Args:
        every: asked at every so many steps, the first time at step `every - 1`; its terms count as many times as much.
        start: the first step at which it may be asked.
        stop: from this step on it is not asked; None: to the end.

    Raises:
        ConfigError: for a time that holds no such step.
    """

    every: int = 1
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.stop is not None and self.asked(self.stop) == 0:
            raise ConfigError(f"{self.words}: there is no step at which the teacher would be asked; stop later")

    @property
    def always(self) -> bool:
        """Whether it is asked at each step."""
        return self == TeacherTimes()

    @property
    def words(self) -> str:
        """The options that make it rest, as they are written."""
        values = {"every_n_steps": (self.every, 1), "start": (self.start, 0), "stop": (self.stop, None)}
        return " ".join(f"teacher.{name}={value}" for name, (value, usual) in values.items() if value != usual)

    def factor(self, step: int) -> float:
        """Return what the weights of its terms are multiplied by at an optimizer step; 0 where it is not asked."""
        if step < self.start or (self.stop is not None and step >= self.stop):
            return 0.0
        # Counted so that a step that is logged, of which the number is a multiple too, is one that asks.
        return float(self.every) if (step + 1) % self.every == 0 else 0.0

    def asked(self, steps: int) -> int:
        """Return at how many of the first `steps` steps it is asked."""
        end = steps if self.stop is None else min(steps, self.stop)
        return max(0, end // self.every - self.start // self.every)


def teacher_times(teacher: Mapping[str, Any]) -> TeacherTimes:
    """Return the times of the configuration's `teacher`; one that was written before they existed is always asked."""
    return TeacherTimes(teacher.get("every_n_steps", 1), teacher.get("start", 0), teacher.get("stop"))
