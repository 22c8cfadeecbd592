"""What a group of processes says of one that does not answer."""

from __future__ import annotations

import pytest

from idd_seg.distributed.timeouts import LostRankError, ranks_explained

GLOO = "[unbound_buffer.cc:129] Timed out waiting 12000ms for send operation to complete"


def test_a_time_out_of_several_processes_is_one_message() -> None:
    with pytest.raises(LostRankError, match=r"trainer\.timeout_minutes.*resume=auto"), ranks_explained(2):
        raise RuntimeError(GLOO)


@pytest.mark.parametrize(("world", "text"), [(1, GLOO), (2, "Connection closed by peer")])
def test_other_errors_are_left_as_they_are(world: int, text: str) -> None:
    with pytest.raises(RuntimeError, match=text[-20:]), ranks_explained(world):
        raise RuntimeError(text)
