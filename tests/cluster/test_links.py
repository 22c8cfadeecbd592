"""A link that breaks, and a process that dies: every process that is left ends with one message, in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.network import Hosts, hosts, missing
from tests.cluster.steps import made
from tests.cluster.ways import CALLBACK, OPTIONS, TOP

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MINUTES = 0.5
LIMIT = 60 * MINUTES + 30


@pytest.fixture
def two() -> Iterator[Hosts]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with hosts() as found:
        yield found


def start(two: Hosts, rank: int, folder: Path) -> subprocess.Popen[str]:
    own = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": two.address}
    own = {**own, "MASTER_PORT": 29777, "GLOO_SOCKET_IFNAME": two.interface(rank), "OMP_NUM_THREADS": 1}
    own = {**own, "PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "src")])}
    words = [sys.executable, "-m", "idd_seg.train", "trainer=ddp", "trainer.num_nodes=2", "trainer.devices=1"]
    words = [
        *words,
        *OPTIONS,
        CALLBACK.format(seconds=0.5),
        "trainer.max_steps=100000",
        f"trainer.timeout_minutes={MINUTES}",
    ]
    return subprocess.Popen(
        two.command(rank, [*words, f"hydra.run.dir={folder}"]),
        env={**os.environ, **{name: str(value) for name, value in own.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("fault", ["link", "rank 0", "rank 1"])
def test_each_process_that_is_left_ends_with_one_message(fault: str, two: Hosts, tmp_path: Path) -> None:
    ranks = [start(two, rank, tmp_path / "run") for rank in range(2)]
    try:
        limit = time.monotonic() + 240
        while len(made(tmp_path / "run")) < 3:
            assert time.monotonic() < limit
            assert all(rank.poll() is None for rank in ranks), [rank.communicate() for rank in ranks]
            time.sleep(0.5)
        began = time.monotonic()
        if fault == "link":
            two.cut()
        else:
            ranks[int(fault[-1])].send_signal(signal.SIGKILL)
        for rank, process in enumerate(ranks):
            if fault == f"rank {rank}":
                continue
            _, errors = process.communicate(timeout=LIMIT - (time.monotonic() - began))
            print(f"{fault}: rank {rank} after {time.monotonic() - began:.0f} s, code {process.returncode}: {errors}")
            assert process.returncode == 1
            assert "Traceback" not in errors, errors
            assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1, errors
    finally:
        for process in ranks:
            process.kill()
            process.wait()
