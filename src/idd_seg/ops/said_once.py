"""Lines that say what was chosen, once a run: several data modules are made on its way, and each would say them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_said: ContextVar[set[str] | None] = ContextVar("said", default=None)


@contextmanager
def each_line_once() -> Iterator[None]:
    """Within it `is_new` is true once for each line; inside of another such block, the outer one counts."""
    if _said.get() is not None:
        yield
        return
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


def is_new(line: str) -> bool:
    """Return whether the line has not been asked for in this block; outside of any block always true."""
    said = _said.get()
    if said is None:
        return True
    new = line not in said
    said.add(line)
    return new
