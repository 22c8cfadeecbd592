"""Fewer held-out pictures than processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from idd_seg import train
from tests.helpers import TINY, clean_error
from tests.processes import Family, family, needs_proc

pytestmark = [needs_proc, pytest.mark.slow]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Family]:
    with family(tmp_path) as found:
        yield found


def test_one_held_out_picture_and_two_processes_are_refused_by_one_message(own: Family) -> None:
    options = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2", "data.val_length=1")
    result = own.run(train, *TINY, *options, "loss=ce", "hydra.run.dir=few")
    assert "the split 'val' has 1 picture(s), fewer than the 2 processes" in clean_error(result)
    assert not own.alive()
