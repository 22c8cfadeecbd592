"""What a part works with: its commands, its time and its record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from idd_seg.benchmarks.gpu.commands import Command, CommandError, last_lines, running
from idd_seg.benchmarks.gpu.record import Record


class LeftOutError(Exception):
    """A part can't be done here; says why."""


@dataclass(frozen=True)
class Place:
    """Where and how all parts run.

    Attributes:
        top: the checkout.
        work: folder of logs and runs.
        device: `cuda` or `cpu`.
        tiny: the smallest sizes, which show that everything runs, and measure nothing.
        seed: of all trainings.
    """

    top: Path
    work: Path
    device: str
    tiny: bool
    seed: int = 0

    @property
    def accelerator(self) -> str:
        """The trainer's word for the device."""
        return "gpu" if self.device == "cuda" else "cpu"

    def folder(self, part: str) -> Path:
        """Return the folder of a part, which is removed before a run: no other program's, whatever `work` is."""
        return self.work / "gpu_parts" / part


@dataclass
class Bench:
    """What one part works with.

    Attributes:
        seconds: that the part may take.
    """

    place: Place
    record: Record
    seconds: float
    since: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that the part has left."""
        return self.seconds - (time.monotonic() - self.since)

    def folder(self, name: str = "") -> Path:
        """Return a folder of this part."""
        return self.place.folder(str(self.record.content["part"])) / name

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> list[str]:
        """Run `python -m WORDS` in the part's time; return the last lines of what it wrote.

        Raises:
            CommandError: if it fails; `OutOfTimeError` if it must be ended.
        """
        with self.running(*words, env=env) as command:
            code = command.wait(self.left)
            lines = last_lines(command.log)
        if code:
            raise CommandError(f"exit code {code}: python -m {words[0]}", lines)
        return lines

    @contextmanager
    def running(self, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Command]:
        """Start `python -m WORDS`; it has ended when this ends."""
        self.record.command(["python", "-m", *words])
        number = len(self.record.content["commands"])
        log = self.place.work / "logs" / f"{self.record.content['part']}_{number}.log"
        log.unlink(missing_ok=True)
        with running([sys.executable, "-m", *words], self.place.top, log, env or {}) as command:
            yield command
