"""A sweep of 30 jobs with six faults: 24 finish, and six are named with state, reason and log."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faulty import CANCELLED, DEAF, FAULTS, KILLED, MISTAKE, SLOW
from tests.cluster.slurm import Cluster, cluster
from tests.cluster.ways import TOP

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
JOBS = 30


@pytest.fixture(scope="module", params=[True, False], ids=["accounting", "no accounting"])
def slurm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm"), accounting=request.param) as found:
        yield found


def sweep(slurm: Cluster, folder: Path, *options: str) -> subprocess.Popen[str]:
    modules = os.pathsep.join([str(TOP), str(TOP / "src")])
    fixed = ("hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1")
    fixed = (*fixed, "hydra.launcher.mem_gb=1", "hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=60")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.faulty", "-m", *fixed, *options],
        cwd=folder,
        env={**slurm.environment, "PYTHONPATH": modules},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_six_faults_are_named_and_the_others_finish(slurm: Cluster, tmp_path: Path) -> None:
    few = ("hydra.launcher.max_num_timeout=0", "hydra.launcher.array_parallelism=10")
    process = sweep(slurm, tmp_path, *few, f"x={','.join(map(str, range(JOBS)))}")
    for number in CANCELLED:
        limit = time.monotonic() + 900
        while not (tmp_path / "sweep" / str(number) / "started").exists():
            assert time.monotonic() < limit
            assert process.poll() is None, process.communicate()
            time.sleep(1)
        (job,) = [j for j in slurm.run("squeue", "-h", "--array", "-o", "%i").split() if j.endswith(f"_{number}")]
        slurm.run("scancel", job)
    output, errors = process.communicate(timeout=900)
    print(output, errors)
    assert process.returncode == 1
    assert "Traceback" not in errors
    with (tmp_path / "sweep" / "jobs.csv").open() as file:
        rows = {int(row["job"]): row for row in csv.DictReader(file)}
    assert len(rows) == JOBS
    assert sorted(number for number, row in rows.items() if row["state"] != "finished") == sorted(FAULTS)
    assert all(Path(rows[number]["log"]).is_file() for number in FAULTS)
    assert [rows[number]["state"] for number in (*CANCELLED, DEAF)] == ["cancelled", "cancelled", "timeout"]
    assert [rows[number]["state"] for number in (MISTAKE, SLOW)] == ["failed", "failed"]
    assert "masks/0001.png" in rows[MISTAKE]["reason"]
    assert "hydra.launcher.max_num_timeout" in rows[SLOW]["reason"]
    assert rows[KILLED]["state"] == "failed"
    named = re.findall(r"^error: job (\d+) ", errors, re.MULTILINE)
    assert sorted(map(int, named)) == sorted(FAULTS)
    if slurm.accounting:
        said = slurm.run("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-S", "now-1hours")
        states = dict(line.split("|") for line in said.splitlines())
        ended = {int(job.partition("_")[2]): state for job, state in states.items() if "_" in job}
        assert ended[MISTAKE] == "FAILED"
        assert ended[0] == "COMPLETED"


def test_a_partition_that_is_not_there_is_one_message(slurm: Cluster, tmp_path: Path) -> None:
    process = sweep(slurm, tmp_path, "hydra.launcher.partition=nowhere", "x=0,1")
    _, errors = process.communicate(timeout=120)
    (message,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "invalid partition" in message.lower()
    assert "%j" not in message
    assert "Traceback" not in errors
