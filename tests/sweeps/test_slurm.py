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
    """The environment of a job, where `python`, `srun` and `scontrol` write down how they are called."""
    tools = {
        "srun": 'echo srun >> calls\nexec "$@"\n',
        "scontrol": 'echo "scontrol $*" >> calls\n',
        "python": (
            'printf "%s\\n" "$@" > words\n'
            '[ -z "${WAITS:-}" ] && exit "${STATUS:-0}"\n'
            "trap 'echo saved >> calls; exit 143' TERM\n"
            "touch started\n"
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
    assert (
        ("srun" in (tmp_path / "calls").read_text())
        if name == "multinode.sbatch"
        else not (tmp_path / "calls").exists()
    )


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
    calls = tmp_path / "calls"
    assert "requeue" not in (calls.read_text() if calls.exists() else "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_when_time_is_up_the_run_saves_before_the_job_is_queued_again(
    name: str, tmp_path: Path, node: dict[str, str]
) -> None:
    job = start(name, tmp_path, {**node, "WAITS": "1"}, "out")
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    calls = (tmp_path / "calls").read_text().split("\n")
    assert [call for call in calls if call not in ("srun", "")] == ["saved", "scontrol requeue 42"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_asks_for_the_folder(name: str, tmp_path: Path, node: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", str(FOLDER / name)], cwd=tmp_path, env=node, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "as the first word" in done.stderr
    assert not (tmp_path / "words").exists()
