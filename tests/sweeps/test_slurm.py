"""The scripts for SLURM, with stand-ins for the programs that they call."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from idd_seg.config.groups import config_dir
from tests.sweeps.run_app import TOP

FOLDER = TOP / "scripts" / "slurm"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sbatch"))
PLACE = {"train.sbatch": "hydra.run.dir", "multinode.sbatch": "hydra.run.dir", "sweep.sbatch": "hydra.sweep.dir"}


def test_each_script_is_tested() -> None:
    assert set(SCRIPTS) == set(PLACE)


@pytest.mark.parametrize("name", [*SCRIPTS, "requeue.sh"])
def test_bash_reads_it(name: str) -> None:
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True, timeout=10)


# The one beside the interpreter, where the environment is not activated.
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    files = [str(FOLDER / name) for name in [*SCRIPTS, "requeue.sh"]]
    done = subprocess.run([str(SHELLCHECK), "-x", *files], cwd=TOP, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a job, where `python` and the programs of SLURM write down how they are called."""
    tools = {
        "srun": 'echo srun >> calls\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n',
        "scontrol": (
            'echo "scontrol $*" >> calls\n[ "$1" != show ] || echo "JobState=RUNNING PreemptTime=${PREEMPTED:-None}"\n'
        ),
        "scancel": 'echo "scancel $*" >> calls\nkill -TERM "$(cat started)"\n',
        "python": (
            'printf "%s\\n" "$@" > words\n'
            '[ -z "${WAITS:-}" ] && exit "${STATUS:-0}"\n'
            "trap 'echo saved >> calls; exit 143' TERM\n"
            "echo $$ > draft; mv draft started\n"
            "while true; do sleep 0.1; done\n"
        ),
    }
    (tmp_path / "bin").mkdir()
    for name, text in tools.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/bash\n{text}")
        tool.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "42",
        "SLURM_SUBMIT_DIR": str(TOP),
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_NUM_NODES": "2",
    }
    return {**os.environ, **slurm, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def start(name: str, folder: Path, env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["bash", str(FOLDER / name), *words], cwd=folder, env=env)


def composed(words: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose("train", [word for word in words if word != "-m"], return_hydra_config=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_it_runs_is_a_configuration(name: str, tmp_path: Path, node: dict[str, str]) -> None:
    assert start(name, tmp_path, node, "out/my run", "data=voc", "student=r18").wait(30) == 0
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["-m", "idd_seg.train"]
    assert f"{PLACE[name]}=out/my run" in words
    cfg = composed(words[2:])
    assert cfg.resume == "auto"
    assert cfg.data.name == "voc"
    # Under srun alone a run hears that it must make room, where its partition has a time of grace.
    assert (tmp_path / "calls").read_text().split() == ["srun"]


def test_a_process_for_each_gpu_of_each_node(tmp_path: Path, node: dict[str, str]) -> None:
    assert start("multinode.sbatch", tmp_path, node, "out").wait(30) == 0
    cfg = composed((tmp_path / "words").read_text().splitlines()[2:])
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (4, 2)
    text = (FOLDER / "multinode.sbatch").read_text()
    assert "--ntasks-per-node=4" in text
    assert "--gpus-per-node=4" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_failed_run_fails_the_job_and_is_not_queued_again(name: str, tmp_path: Path, node: dict[str, str]) -> None:
    assert start(name, tmp_path, {**node, "STATUS": "3"}, "out").wait(30) == 3
    assert "requeue" not in (tmp_path / "calls").read_text()


def begun(name: str, folder: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    job = start(name, folder, {**env, "WAITS": "1"}, "out")
    deadline = time.monotonic() + 20
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return job


def calls(folder: Path) -> list[str]:
    return [call for call in (folder / "calls").read_text().splitlines() if call != "srun"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_when_time_is_up_the_tasks_save_before_the_job_is_queued_again(
    name: str, tmp_path: Path, node: dict[str, str]
) -> None:
    job = begun(name, tmp_path, node)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    assert calls(tmp_path) == ["scancel --signal=TERM 42", "saved", "scontrol requeue 42"]


def test_a_run_that_made_room_within_its_grace_is_queued_again(tmp_path: Path, node: dict[str, str]) -> None:
    """SLURM tells the tasks alone, and would not put back a job that ends by itself."""
    job = begun("train.sbatch", tmp_path, {**node, "PREEMPTED": "2026-01-02T03:04:05"})
    os.kill(int((tmp_path / "started").read_text()), signal.SIGTERM)
    assert job.wait(30) == 0
    assert calls(tmp_path) == ["saved", "scontrol show job 42", "scontrol requeue 42"]


def test_a_run_that_is_cancelled_saves_and_is_not_queued_again(tmp_path: Path, node: dict[str, str]) -> None:
    job = begun("train.sbatch", tmp_path, node)
    job.send_signal(signal.SIGTERM)  # as the batch script, which must not end before its tasks have saved
    time.sleep(0.3)
    assert job.poll() is None
    os.kill(int((tmp_path / "started").read_text()), signal.SIGTERM)
    assert job.wait(30) == 143
    assert calls(tmp_path) == ["saved", "scontrol show job 42"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_asks_for_the_folder(name: str, tmp_path: Path, node: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", str(FOLDER / name)], cwd=tmp_path, env=node, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "as the first word" in done.stderr
    assert not (tmp_path / "words").exists()
