"""A process of a distributed run that the others wait for in vain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from idd_seg.errors import UserError

# What gloo and NCCL say of a collective that did not come about in time.
TIMED_OUT = (
    *("Timed out waiting", "Application timeout caused pair closure"),
    *("Watchdog caught collective operation timeout", "Timeout(ms)="),
)


class LostRankError(UserError):
    """A process that stands still, or is slower than the group's time-out allows."""


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
