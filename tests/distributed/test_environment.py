"""Which process this is, by the environment that launchers make; and numbers of devices that contradict them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig

from idd_seg.config import groups
from idd_seg.distributed.environment import RankInfo, rank_info_of
from idd_seg.errors import ConfigError
from idd_seg.runs import run
from tests.helpers import TINY
from tests.processes import LAUNCHERS


def torchrun(rank: int = 5, world: int = 8, local_rank: int = 1, local_world: int = 4) -> dict[str, str]:
    values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_world}
    return {name: str(value) for name, value in values.items()}


def srun(rank: int = 3, world: int = 4, local_rank: int = 1, nodes: int = 2) -> dict[str, str]:
    values = {"PROCID": rank, "STEP_NUM_TASKS": world, "LOCALID": local_rank, "STEP_NUM_NODES": nodes}
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


def test_a_process_of_its_own() -> None:
    assert rank_info_of({}) is None
    assert rank_info_of({"RANK": "0", "WORLD_SIZE": "2"}) is None  # half of what torchrun sets is not torchrun


def test_torchrun() -> None:
    assert rank_info_of(torchrun()) == RankInfo(5, 8, 1, 4)
    assert RankInfo(5, 8, 1, 4).nodes == 2


def test_srun() -> None:
    assert rank_info_of(srun()) == RankInfo(3, 4, 1, 2)


@pytest.mark.parametrize("environment", [torchrun(0, 1, 0, 1), srun(0, 1, 0, 1)])
def test_one_process_of_a_launcher_stands_alone(environment: dict[str, str]) -> None:
    assert rank_info_of(environment) is None


def test_a_batch_script_without_srun_stands_alone() -> None:
    # sbatch sets these for the script itself, however many tasks were asked for.
    batch = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77", "SLURM_NNODES": "2"}
    assert rank_info_of(batch) is None


def test_torchrun_under_srun_is_torchruns() -> None:
    assert rank_info_of({**srun(1, 2, 0, 2), **torchrun(5, 8, 1, 4)}) == RankInfo(5, 8, 1, 4)


@pytest.mark.parametrize(
    "environment",
    [
        torchrun(rank=8),
        torchrun(rank=-1),
        torchrun(local_rank=4),
        torchrun(world=6),  # 4 on this machine, 2 elsewhere
        torchrun(local_world=0),
        torchrun(world=2),
        srun(world=5),
        srun(local_rank=2),
        srun(nodes=8),  # no process on some of them
        {**torchrun(), "RANK": "first"},
        {**srun(), "SLURM_STEP_NUM_NODES": "0"},
        {name: value for name, value in srun().items() if name != "SLURM_STEP_NUM_NODES"},
    ],
    ids=str,
)
def test_an_environment_that_can_not_be_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"launcher"):
        rank_info_of(environment)


def compose(folder: Path, *overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(groups.config_dir()), version_base="1.3"):
        run_dir = f"run_dir={folder / 'run'}"
        return hydra.compose("train", [*TINY, "loss=ce", "name=test", run_dir, f"cache_dir={folder}", *overrides])


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    def launch(environment: dict[str, str]) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return launch


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (torchrun(0, 2, 0, 2), ("trainer=ddp", "trainer.devices=3")),
        (torchrun(0, 4, 0, 2), ("trainer=ddp", "trainer.devices=4")),
        (torchrun(0, 4, 0, 4), ("trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2")),
        (srun(0, 4, 0, 2), ("trainer=ddp", "trainer.devices=2", "trainer.num_nodes=4")),
    ],
    ids=str,
)
def test_devices_that_contradict_the_launcher_are_refused(
    environment: dict[str, str], options: tuple[str, ...], launched: Any, tmp_path: Path
) -> None:
    cfg = compose(tmp_path, *options)
    launched(environment)
    world, local = (4, 2) if "SLURM_PROCID" in environment else (environment["WORLD_SIZE"], None)
    local = local or environment["LOCAL_WORLD_SIZE"]
    nodes = int(world) // int(local)
    with pytest.raises(ConfigError, match=re.escape(f"the launcher started {local} process(es) on each of {nodes}")):
        run.run(cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("trainer.devices=0",), "trainer.devices"),
        (("trainer.devices=-2",), "trainer.devices"),
        (("trainer.devices=[0,1]",), "CUDA_VISIBLE_DEVICES"),
        (("trainer.devices=two",), "'two'"),
        (("trainer.devices=true",), "trainer.devices"),
        (("trainer.num_nodes=2",), "torchrun or srun"),
    ],
    ids=str,
)
def test_devices_that_can_not_be_are_refused(
    options: tuple[str, ...], named: str, launched: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        run.run(compose(tmp_path, *options))
    assert not (tmp_path / "run").exists()
