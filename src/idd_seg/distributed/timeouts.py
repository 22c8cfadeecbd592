"""Processes of a run that do not answer, have ended, or whose network is gone: one message instead of a trace.

A broken link is told by nobody: what was sent is tried again for a quarter of an hour, and whoever waits for an answer
waits for ever. So nothing here waits for another machine without a limit of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idd_seg.errors import UserError

# What gloo and NCCL say of a collective that did not come about in time.
TIMED_OUT = (
    *("Timed out waiting", "Application timeout caused pair closure"),
    *("Watchdog caught collective operation timeout", "Timeout(ms)="),
)
# What they say where another process has left the group.
BROKEN = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "remote process exited")
# What they, and the store, say where the processes do not find each other.
UNMET = (
    "connectFullMesh failed",
    "Timed out after",
    "has timed out",
    "Socket Timeout",
    "wait timeout",
    "Connection refused",
)


class LostRankError(UserError):
    """A process that stands still, is slower than the group's time-out allows, or is gone."""


@contextmanager
def ranks_explained(world: int) -> Iterator[None]:
    """Turn the time-out of a group of `world` processes into one message.

    Raises:
        LostRankError: if another process does not come to where this one waits.
    """
    try:
        yield
    except RuntimeError as error:
        if world < 2 or not any(text in str(error) for text in TIMED_OUT):
            raise
        raise LostRankError(
            "another process of the run did not answer within trainer.timeout_minutes: it stands still, or its machine "
            "or network does. resume=auto goes on from the last checkpoint"
        ) from error


@contextmanager
def peers_explained() -> Iterator[None]:
    """Turn the end of another process into one message, where no launcher of ours says which it was, and why.

    Raises:
        LostRankError: if another process has left the group, or never came.
    """
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in BROKEN):
            raise LostRankError(
                "another process of the run has ended, or its machine has; what that one said, and what torchrun or "
                "srun says of it, is the reason. resume=auto goes on from the last checkpoint"
            ) from error
        if any(text in str(error) for text in UNMET):
            raise LostRankError(
                "the processes of the run did not find each other: one has ended or never begun, or the network "
                "between their machines does not let them (MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME, "
                "NCCL_SOCKET_IFNAME)"
            ) from error
        raise


def within(seconds: float, call: Callable[[], None]) -> bool:
    """Call what may never return, and tell whether it has within so many seconds; what it raises is raised here.

    What has not returned goes on in a thread that ends with the process.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()
