"""How long a training has taken, over all its parts, and when each validation was over."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L


@dataclass(frozen=True)
class Moment:
    """Time since a training began.

    Attributes:
        seconds: by the clock on the wall.
        cpu_seconds: of the processor in this process, its threads together; other programs on the machine change it
            little, where they may double the time on the wall. Loader processes are not counted.
    """

    seconds: float
    cpu_seconds: float


class WallClock(L.Callback):
    """Counts the seconds since it was made, and those of the parts before, which checkpoints carry.

    What a killed part did after its last checkpoint is not counted: it is done again.

    Attributes:
        validated: when the validation of a step was over, by step.
    """

    def __init__(self) -> None:
        self.before = Moment(0.0, 0.0)
        self.start = Moment(time.perf_counter(), time.process_time())
        self.validated: dict[int, Moment] = {}

    @property
    def now(self) -> Moment:
        """Of all parts up to now."""
        before, start = self.before, self.start
        return Moment(
            before.seconds + time.perf_counter() - start.seconds,
            before.cpu_seconds + time.process_time() - start.cpu_seconds,
        )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated[trainer.global_step] = self.now

    @property
    def state_key(self) -> str:
        # Under the name that the class had when the first checkpoints were written.
        return "Clock"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {**asdict(self.now), "validated": {step: asdict(moment) for step, moment in self.validated.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the time of the parts before; checkpoints of before have no more than the seconds."""
        self.before = Moment(float(state_dict["seconds"]), float(state_dict.get("cpu_seconds", 0.0)))
        self.validated = {int(step): Moment(**plain) for step, plain in state_dict.get("validated", {}).items()}
