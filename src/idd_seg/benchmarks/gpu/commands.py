"""Commands that end in time, with all that they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GRACE = 6.0  # seconds from SIGTERM to SIGKILL; a training saves its state in them
KILLED = 3.0  # seconds in which a process has gone after SIGKILL
LINES = 12  # of its output that a failed command is recorded with
MARK = "IDD_SEG_GPU_JOB"  # in the environment of a command and of all that it starts, in whatever session


class CommandError(Exception):
    """A command ended with an error.

    Attributes:
        lines: the last ones that it has written.
    """

    def __init__(self, what: str, lines: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.lines = list(lines)


class OutOfTimeError(CommandError):
    """A command was ended, since its time was up."""


def last_lines(log: Path) -> list[str]:
    """Return the last lines of a log that say something."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line.rstrip()[:300] for line in text.splitlines() if line.strip()][-LINES:]


class Command:
    """A command that is running, in a process group of its own.

    Args:
        words: program and arguments.
        log: file that its output is added to.
        more: of the environment, beside that of this process.
    """

    def __init__(self, words: Sequence[str], folder: Path, log: Path, more: Mapping[str, str]) -> None:
        self.log, self.mark = log, uuid.uuid4().hex
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env={**os.environ, **more, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int:
        """Return the exit code; a command that has not ended by then is ended.

        Raises:
            OutOfTimeError: if it had to be.
        """
        try:
            return self.process.wait(max(0.1, seconds - GRACE))
        except subprocess.TimeoutExpired:
            self.end()
            raise OutOfTimeError(
                f"ended after {max(0.0, seconds - GRACE):.0f} seconds, its share of the time", last_lines(self.log)
            ) from None

    def end(self, grace: float = GRACE) -> None:
        """Ask the command and what it has started to stop, and kill what is there a little later."""
        self._send(signal.SIGTERM, self.process.pid)
        until = time.monotonic() + grace
        while time.monotonic() < until and (self.process.poll() is None or self._started()):
            time.sleep(0.05)
        until = time.monotonic() + KILLED
        while (pids := self._started()) and time.monotonic() < until:
            for pid in pids:
                self._send(signal.SIGKILL, pid)
            time.sleep(0.02)
        if self.process.poll() is None:
            self._send(signal.SIGKILL, self.process.pid)
        self.process.wait()

    def _started(self) -> list[int]:
        """Return the processes that carry this command's mark: also those whose parents have gone (Linux)."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                is_marked = f"{MARK}={self.mark}".encode() in entry.read_bytes()
            except OSError:  # it has ended, or is not ours
                continue
            if is_marked:
                found.append(int(entry.parent.name))
        return found

    @staticmethod
    def _send(number: int, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            # The leader of a group stands for all of it.
            os.killpg(pid, number) if os.getpgid(pid) == pid else os.kill(pid, number)


@contextmanager
def running(words: Sequence[str], folder: Path, log: Path, more: Mapping[str, str]) -> Iterator[Command]:
    """Start a command; nothing of it is left behind, however this ends."""
    command = Command(words, folder, log, more)
    try:
        yield command
    finally:
        command.end(GRACE if command.process.poll() is None else 0.0)
