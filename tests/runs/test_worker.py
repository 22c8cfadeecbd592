"""One process of several: what it says when its group breaks."""

from __future__ import annotations

import pytest
from torch.distributed import DistNetworkError

from idd_seg.distributed.environment import RankInfo
from idd_seg.distributed.process_group import ERROR, FIRST
from idd_seg.runs.worker import _others_say_why

RANK = RankInfo(0, 2, 0, 2)


class Store:
    """The launcher's store, with what has been written there; None stands for one that has gone with the launcher."""

    def __init__(self, content: dict[str, bytes] | None) -> None:
        self.content = content

    def check(self, keys: list[str]) -> bool:
        if self.content is None:
            raise DistNetworkError("Broken pipe")
        return all(key in self.content for key in keys)

    def get(self, key: str) -> bytes:
        assert self.content is not None
        return self.content[key]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, True),  # the launcher was killed: nobody is left to be told
        ({ERROR.format(1): b"no luck"}, True),
        ({}, False),
        ({FIRST: b"0"}, False),
    ],
)
def test_an_error_is_shown_where_nobody_else_knows_it(content: dict[str, bytes] | None, told: bool) -> None:
    assert _others_say_why(Store(content), RANK, ValueError("a mistake")) is told
