"""Runs of the program in forks of this process: as real as any to a signal, without seconds of imports each.

The process that forks must never have trained itself: autograd's threads don't outlive a fork.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.commands import call


@dataclass
class Child:
    """A run that goes on.

    Attributes:
        log: the file that holds its output and its errors.
    """

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it goes on."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self._end_workers()
        return self.code

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, or None for a run that hangs; that one is killed."""
        limit = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > limit:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -signal.SIGKILL
                return None
            time.sleep(0.005)
        return self.code

    def send(self, number: int) -> None:
        """Send a signal, if the run still goes on."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _end_workers(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def errors(self) -> list[str]:
        """The messages of the program to its user."""
        # PyTorch's handler of SIGBUS writes the zero byte behind its text too.
        return [line for line in self.text.replace("\0", "").splitlines() if line.startswith("error: ")]

    @property
    def explained(self) -> bool:
        """Tell whether it ended well, or by exactly one message, without a stack trace."""
        if "Traceback" in self.text:
            return False
        return not self.errors if self.code in (0, 130, 143) else self.code == 1 and len(self.errors) == 1


def start(
    module: ModuleType, arguments: list[str], folder: Path, log: str, prepare: Callable[[], None] | None = None
) -> Child:
    """Run an entry point in a folder; `prepare` is called in the new process before."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(module, arguments, folder, folder / log, prepare)
    return Child(pid, folder / log)


def _become(
    module: ModuleType, arguments: list[str], folder: Path, log: Path, prepare: Callable[[], None] | None
) -> None:
    code = 70
    try:
        os.setsid()
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["IDD_SEG_CACHE"] = str(folder / "cache")
        if prepare is not None:
            prepare()
        code = call(module, *arguments, folder=folder, patch=pytest.MonkeyPatch())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
