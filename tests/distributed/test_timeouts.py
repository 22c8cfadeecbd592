"""What a group of processes says of one that does not answer, or is gone."""

from __future__ import annotations

import time

import pytest

from idd_seg.distributed.timeouts import LostRankError, peers_explained, ranks_explained, within

GLOO = "[unbound_buffer.cc:129] Timed out waiting 12000ms for send operation to complete"
UNMET = "Timed out after 601 seconds waiting for clients. 1/2 clients joined."


def test_a_time_out_of_several_processes_is_one_message() -> None:
    with pytest.raises(LostRankError, match=r"trainer\.timeout_minutes.*resume=auto"), ranks_explained(2):
        raise RuntimeError(GLOO)


@pytest.mark.parametrize(("world", "text"), [(1, GLOO), (2, "Connection closed by peer")])
def test_other_errors_are_left_as_they_are(world: int, text: str) -> None:
    with pytest.raises(RuntimeError, match=text[-20:]), ranks_explained(world):
        raise RuntimeError(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("[pair.cc:534] Connection closed by peer [10.0.0.2]:1", "has ended.*resume=auto"), (UNMET, "did not find")],
)
def test_a_process_that_is_gone_is_one_message(text: str, said: str) -> None:
    with pytest.raises(LostRankError, match=said), peers_explained():
        raise RuntimeError(text)


def test_a_bug_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), peers_explained():
        raise RuntimeError("size mismatch")


def test_what_never_returns_is_left_behind() -> None:
    began = time.monotonic()
    assert not within(0.1, lambda: time.sleep(5))
    assert time.monotonic() < began + 3
    assert within(5, lambda: None)
    with pytest.raises(ValueError, match="wrong"):
        within(5, lambda: _raise(ValueError("wrong")))


def _raise(error: Exception) -> None:
    raise error
