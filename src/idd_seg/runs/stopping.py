"""What a signal does to a run outside of its training steps, where `callbacks.graceful_stop` hears it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Those by which systems stop a run; ctrl-C raises KeyboardInterrupt by itself.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
CODES = {128 + number for number in NUMBERS}


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end this process by an exception, with exit code 128 + number.

    So locks are released, other processes of the run are ended, and `run.json` says that the run was interrupted.
    """

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        before = {number: signal.signal(number, stop) for number in NUMBERS}
    except ValueError:  # not the main thread: a launcher's, which handles signals itself
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
