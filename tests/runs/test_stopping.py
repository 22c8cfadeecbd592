"""Signals outside of the training steps."""

from __future__ import annotations

import os
import signal

import pytest

from idd_seg.callbacks.graceful_stop import STOPPING
from idd_seg.runs import stopping
from idd_seg.runs.stopping import stoppable


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_the_process_by_an_exception(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, stoppable():
        os.kill(os.getpid(), number)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) == before


def told_twice(saved: list[str]) -> None:
    """As slurmstepd tells a process, 30 ms apart; in between it has begun to save."""
    with stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            saved.append("other processes")


def test_the_same_wish_again_does_not_disturb_what_the_first_has_begun() -> None:
    saved: list[str] = []
    with pytest.raises(SystemExit):
        told_twice(saved)
    assert saved


def test_a_second_wish_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAME", 0.0)
    saved: list[str] = []
    with pytest.raises(SystemExit):
        told_twice(saved)
    assert not saved
