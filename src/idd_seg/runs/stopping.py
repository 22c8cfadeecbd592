"""What a signal does to a run outside of its training steps, where `callbacks.graceful_stop` hears it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from idd_seg.callbacks.graceful_stop import SAME, STOPPING

CODES = {128 + number for number in STOPPING}  # ctrl-C raises KeyboardInterrupt by itself


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, SIGUSR1 and SIGUSR2 end this process by an exception, with exit code 128 + number.

    So locks are released, other processes of the run are ended, and `run.json` says that the run was interrupted.
    Batch systems send a signal twice within milliseconds: one that comes within `SAME` seconds of the first is the same
    wish, and does not disturb what the first has begun, as waiting for other processes to save.
    """
    told: list[float] = []  # when the first came

    def stop(number: int, frame: Any) -> None:
        if told and time.monotonic() < told[0] + SAME:
            return
        told[:] = [time.monotonic()]
        raise SystemExit(128 + number)

    try:
        before = {number: signal.signal(number, stop) for number in STOPPING}
    except ValueError:  # not the main thread: a launcher's, which handles signals itself
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
