"""Loading that hangs, loader processes that are killed, and too little shared memory: said with names and advice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from idd_seg.data.pipeline import worker_errors
from idd_seg.data.pipeline.source import Item
from idd_seg.data.pipeline.worker_errors import explained, scarce
from idd_seg.data.shapes import Shapes
from idd_seg.errors import ConfigError, DataError, message_of
from tests.test_training import shapes


class Source:
    """The scenes, one of which is made in a way of its own."""

    def __init__(self, source: Any, way: Any) -> None:
        self.source, self.way = source, way

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return str(self.source.name(index))

    def key(self, index: int) -> str:
        return str(self.source.key(index))

    def __getitem__(self, index: int) -> Item:
        if index == 2:
            self.way()
        item: Item = self.source[index]
        return item


def data(way: Any, timeout_s: float | None = 0.5) -> Shapes:
    found = shapes()
    found.num_workers, found.timeout_s = 1, timeout_s
    dataset = found.dataset("val")
    dataset.source = Source(dataset.source, way)
    return found


def hang() -> None:
    time.sleep(60)


def hang_deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(60)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (hang, r"^shapes:0/val/2: reading it takes more than 0\.5 s.*data\.timeout_s"),
        (hang_deaf, r"^no batch came for 0\.5 s; it is made of shapes:0/val/2\. .*data\.timeout_s"),
        (die, r"^a loader process was killed, .*too much memory.*data\.num_workers"),
    ],
)
def test_what_does_not_come_is_named(way: Any, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        list(data(way).loader("val"))
    assert re.search(message, message_of(caught.value))
    assert time.monotonic() - start < 20


STOPPED = """
import os, signal, time
from tests.data.test_worker_timeout import data

def be_stopped():
    group = os.getpgrp()
    if os.fork() == 0:
        os.setsid()
        os.killpg(group, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(group, signal.SIGCONT)
        os._exit(0)
    time.sleep(0.5)

assert len(list(data(be_stopped, timeout_s=2.0).loader("val"))) == 4
"""


def test_a_stop_of_all_processes_is_no_hang() -> None:
    """Time that goes by while a cluster suspends a job counts once, not ten times."""
    ended = subprocess.run([sys.executable, "-c", STOPPED], start_new_session=True, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("value", [0, -1, True, float("nan"), float("inf")])
def test_odd_times_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.timeout_s"):
        Shapes(**{**OPTIONS, "timeout_s": value})


OPTIONS: dict[str, Any] = {
    **{"size": (32, 32), "scene_seed": 0, "train_length": 8, "val_length": 4, "test_length": 4, "name": "shapes"},
    **{"num_classes": 2, "class_names": ["a", "b"], "palette": [[0] * 3, [1] * 3], "mean": [0.5] * 3, "std": [0.2] * 3},
}


class Usage(NamedTuple):
    free: int


def test_little_shared_memory_is_told_before_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_errors.shutil, "disk_usage", lambda path: Usage(100_000))
    assert scarce(99_000, 2) is None
    assert "--shm-size" in str(scarce(101_000, 2))
    made = Shapes(**OPTIONS, num_workers=4, batch_size=8)
    # 4 processes, 2 batches each, of 8 pictures of 32 x 32 pixels and 4 bytes.
    with pytest.warns(UserWarning, match=r"0 MB free, and the batches of 4 loader processes .* about 0 MB"):
        made.loader("train", shuffle=True)


def test_a_machine_without_such_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_errors, "SHARED", Path("/nowhere"))
    assert scarce(1 << 60, 2) is None


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), explained():
        raise RuntimeError("something else")
    bus = "DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that dataloader's workers are"
    with pytest.raises(DataError, match="--shm-size"), explained():
        raise RuntimeError(bus)
