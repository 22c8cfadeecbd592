"""Jobs of SLURM, with stand-ins for its programs that run the jobs here, one after the other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.sweeps.run_app import sweep

# Runs the tasks of a job array as SLURM would, and says their number.
SBATCH = """#!/bin/bash
file="${@: -1}"
cp "$file" "$HOME/submitted.sh"
last=$(sed -n 's/#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$file")
run() {
    env SLURM_ARRAY_JOB_ID=12 SLURM_ARRAY_TASK_ID="$1" SLURM_JOB_ID="1$1" SLURM_PROCID=0 SLURM_LOCALID=0 \\
        SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here \\
        bash "$file"
}
(
    for task in $(seq 0 "$last"); do
        run "$task"
        if grep -q "requeue 12_$task" "$HOME/scontrol"; then run "$task"; fi
    done
) < /dev/null > "$HOME/out" 2>&1 &
echo "Submitted batch job 12"
"""
SRUN = """#!/bin/bash
while [[ "$1" != */python* ]]; do shift; done
exec "$@"
"""
SACCT = """#!/bin/bash
printf 'JobID|State|NodeList\\n12_0|COMPLETED|here\\n12_1|COMPLETED|here\\n'
"""
SCONTROL = """#!/bin/bash
echo "$*" >> "$HOME/scontrol"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (tmp_path / "scontrol").touch()
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_each_run_is_a_job_of_an_array(tmp_path: Path, slurm: dict[str, str]) -> None:
    options = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "+trainer.devices=2", "x=1,2")
    result = sweep(tmp_path, *options, **slurm)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("sweep/*/starts"))) == 2
    lines = (tmp_path / "submitted.sh").read_text().splitlines()
    wanted = ["partition=gpu", "gpus-per-node=2", "array=0-1%2", "requeue", "nodes=1", "ntasks-per-node=1", "time=1440"]
    assert {f"#SBATCH --{word}" for word in wanted} <= set(lines)
    # Not SIGUSR1, which Lightning takes.
    assert [line for line in lines if "--signal" in line] == ["#SBATCH --signal=USR2@120"]


def test_a_job_that_is_stopped_is_queued_again_with_resume(tmp_path: Path, slurm: dict[str, str]) -> None:
    result = sweep(tmp_path, "hydra/launcher=submitit_slurm", "mode=preempted", "x=1,2", **slurm)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "scontrol").read_text().split() == ["requeue", "12_0", "requeue", "12_1"]
    starts = [path.read_text().split() for path in sorted(tmp_path.glob("sweep/*/starts"))]
    assert starts == [["None", "auto"]] * 2
