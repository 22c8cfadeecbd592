"""Weights & Biases: what an offline run's file holds, and that nothing of W&B ever stops a training."""

from __future__ import annotations

import json
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import yaml
from lightning.pytorch.utilities import rank_zero_only

import idd_seg.train
from idd_seg.config.groups import config_dir
from idd_seg.errors import ConfigError
from idd_seg.loggers import factory
from idd_seg.loggers.factory import close_wandb, wandb_logger
from tests.commands import call
from tests.helpers import TINY
from tests.wandb_file import Written, read_only_run, read_run

wandb = pytest.importorskip("wandb")
KEY = "0" * 40


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no settings and no folders of the person who runs the tests; no run left over."""
    isolate(monkeypatch, tmp_path_factory.mktemp("home"))
    yield
    close_wandb()


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_RUN_ID", "WANDB_SWEEP_ID"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))
    patch.setenv("NETRC", str(home / "netrc"))


def open_run(folder: Path, **options: Any) -> Any:
    return wandb_logger(**{"run_dir": str(folder), "project": "p", "name": "n", "group": None, "tags": [], **options})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs of one sweep in one process."""
    folder = tmp_path_factory.mktemp("sweep")
    options = ("logger=wandb", "logger.wandb.tags=[a,b]", "hydra.sweep.dir=ours")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        swept = ("loss.position_weight=1", "loss.idd_weight=0,0.5")
        assert call(idd_seg.train, "-m", *TINY, *options, *swept, folder=folder, patch=patch) == 0
    return folder / "ours"


@pytest.fixture(scope="module")
def jobs(sweep: Path) -> list[Written]:
    """What the two jobs wrote."""
    return [read_only_run(next(sweep.glob(f"{number}*"))) for number in (0, 1)]


def test_each_job_of_a_sweep_is_a_run_in_one_group(sweep: Path, jobs: list[Written]) -> None:
    first, second = jobs
    assert first.id != second.id
    assert first.group == second.group == "ours"
    assert first.name == "shapes_small 0"
    assert [job.exit_code for job in jobs] == [0, 0]
    assert (first.project, first.job_type, first.tags) == ("idd-seg", "train", ["a", "b"])
    assert [first.config["loss"]["idd_weight"], second.config["loss"]["idd_weight"]] == [0, 0.5]
    assert second.config["optimizer"]["lr"] == 1.6e-2  # an interpolation, resolved
    assert (next(sweep.glob("0*")) / "wandb_id.txt").read_text().strip() == first.id


def test_a_single_run_has_no_group(tmp_path: Path) -> None:
    open_run(tmp_path / "run", mode="offline").log_metrics({"a": 1.0}, 1)
    close_wandb()
    written = read_only_run(tmp_path / "run")
    assert (written.group, written.name) == ("", "n")
    assert written.history["a"] == 1
    assert written.history["trainer/global_step"] == 1


def test_curves_and_summary(sweep: Path, jobs: list[Written]) -> None:
    keys = set(jobs[1].history)
    for term in ("ce", "kd", "cwd", "idd", "position"):
        assert {f"train/{term}", f"train/{term}_weighted"} <= keys
    assert {"train/loss", "train/images_per_s", "val/mIoU", "val/accuracy"} <= keys
    assert "train/idd" not in jobs[0].history
    metrics = json.loads((next(sweep.glob("1*")) / "metrics.json").read_text())
    for which in ("last", "best"):
        assert jobs[1].summary[f"{which}/mIoU"] == pytest.approx(metrics[which]["miou"])
        assert jobs[1].summary[f"{which}/step"] == metrics[which]["step"]
    for name, value in metrics["last"]["iou"].items():
        assert jobs[1].history.get(f"val/iou/{name}") == (None if value is None else pytest.approx(value))


def media(sweep: Path) -> Path:
    (found,) = next(sweep.glob("1*")).glob("wandb/offline-run-*/files")
    return found


def test_tables_matrices_and_pictures(sweep: Path, jobs: list[Written]) -> None:
    history = jobs[1].history
    folder = next(sweep.glob("1*"))
    exhibits = json.loads((folder / "exhibits" / "exhibits.json").read_text())
    names = exhibits["class_names"]
    table = json.loads((media(sweep) / history["classes/iou.path"]).read_text())
    assert table["columns"] == ["class", "IoU"]
    assert [row[0] for row in table["data"]] == names
    for key in ("confusion/shares", "class_distances/maps", "position/maps"):
        assert (media(sweep) / history[f"{key}.path"]).stat().st_size > 1000
    counts = json.loads((media(sweep) / history["confusion/pixels_table.path"]).read_text())["data"]
    assert sum(row[2] for row in counts) == np.sum(exhibits["confusion"]) > 0
    pairs = json.loads((media(sweep) / history["class_distances/pairs.path"]).read_text())
    assert pairs["columns"] == ["class", "other", "student", "teacher"]
    assert len(pairs["data"]) == len(names) * (len(names) - 1) // 2


def test_pictures_have_a_mask_for_truth_and_each_network(sweep: Path, jobs: list[Written]) -> None:
    history = jobs[1].history
    assert history["predictions.count"] == 4
    assert history["predictions.captions"] == [f"shapes:0/val/{i}" for i in range(4)]
    for masks in history["predictions.all_masks"]:
        assert set(masks) == {"truth", "student", "teacher"}
        assert all((media(sweep) / mask["path"]).is_file() for mask in masks.values())
    assert any("spark" in json.dumps(v) for k, v in jobs[1].config.items() if "class_labels" in json.dumps([k, v]))


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_makes_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = open_run(tmp_path, mode="online", timeout=2)
    start = time.monotonic()
    with pytest.warns(UserWarning, match="this run is kept offline"):
        run.log_metrics({"a": 1.0}, 1)
    folder = close_wandb()
    assert time.monotonic() - start < 30
    assert folder is not None
    assert "offline-run" in folder
    assert read_only_run(tmp_path).history["a"] == 1


def test_a_server_that_does_not_answer_makes_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        run = open_run(tmp_path, timeout=2)
        start = time.monotonic()
        with pytest.warns(UserWarning, match="this run is kept offline"):
            run.log_metrics({"a": 1.0}, 1)
        close_wandb()
        assert time.monotonic() - start < 30


def test_an_error_in_wandb_is_one_warning_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no more")

    monkeypatch.setattr(wandb.Run, "log", broken)
    options = ("loss=ce", "logger=wandb", "hydra.run.dir=run")
    with pytest.warns(UserWarning, match="without W&B from here") as caught:
        assert call(idd_seg.train, *TINY, *options, folder=tmp_path, patch=monkeypatch) == 0
    assert len([w for w in caught if "W&B" in str(w.message)]) == 1
    assert calls == 1
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["last"]["step"] == 3


def test_a_run_that_is_not_sent_in_time_says_how_to_send_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(tmp_path, mode="offline").log_metrics({"a": 1.0}, 1)

    finish = wandb.run.finish

    def late(exit_code: int) -> None:
        finish(exit_code)
        raise TimeoutError("too late")

    monkeypatch.setattr(wandb.run, "finish", late)
    with pytest.warns(UserWarning, match=r"too late.*wandb sync .*offline-run"):
        close_wandb()


def test_a_run_that_an_exception_ends_is_marked_as_failed(tmp_path: Path) -> None:
    def train() -> None:
        try:
            open_run(tmp_path, mode="offline").log_metrics({"a": 1.0}, 1)
            raise ValueError("in training")
        finally:
            close_wandb()

    with pytest.raises(ValueError, match="in training"):
        train()
    assert read_only_run(tmp_path).exit_code == 1


def test_a_folder_that_wandb_cant_write_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    run = open_run(tmp_path, mode="offline")
    monkeypatch.setattr(wandb, "init", refused)
    with pytest.warns(UserWarning, match="PermissionError.*goes on, without W&B"):
        assert run.experiment is None  # Lightning asks for it before the first step
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.log_metrics({"a": 1.0}, 1)


def part(folder: Path) -> Written:
    open_run(folder, mode="offline").log_metrics({"a": 1.0}, 1)
    names = close_wandb()
    assert names is not None
    (path,) = Path(names.split()[-1]).glob("*.wandb")
    return read_run(path)


def test_a_resumed_run_goes_on_with_its_id_and_a_run_trained_anew_does_not(tmp_path: Path) -> None:
    first = part(tmp_path)
    anew = part(tmp_path)
    assert anew.id != first.id
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert part(tmp_path).id == anew.id


def test_a_wandb_sweep_names_its_runs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "of-the-sweep")
    assert part(tmp_path).id == "of-the-sweep"


def test_only_rank_zero_opens_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    run = open_run(tmp_path, mode="offline")
    run.log_hyperparams({})
    run.log_metrics({"a": 1.0}, 1)
    assert wandb.run is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sometimes"}, "must be auto, online, offline or disabled, got 'sometimes'"),
        ({"timeout": 0}, "timeout must be a number of seconds > 0, got '0'"),
        ({"tags": "one"}, r"tags is a list: logger.wandb.tags=\[one\]"),
        ({"tags": ["x" * 65]}, "1 to 64 characters"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_run(tmp_path, **options)


def test_auto_is_online_with_a_key_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_run(tmp_path)._offline
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert not open_run(tmp_path)._offline
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert open_run(tmp_path)._offline


@pytest.mark.parametrize("way", ["environment", "option"])
def test_a_disabled_run_writes_nothing(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    options = ["logger=wandb", *(["logger.wandb.mode=disabled"] if way == "option" else [])]
    assert call(idd_seg.train, *TINY, *options, "loss=ce", "hydra.run.dir=r", folder=tmp_path, patch=monkeypatch) == 0
    assert (tmp_path / "r" / "metrics.csv").is_file()
    assert not [path for path in tmp_path.rglob("*") if "wandb" in path.name and path.suffix != ".yaml"]


def test_a_word_that_wandb_does_not_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(ConfigError, match="WANDB_MODE=of: it must be online, offline or disabled"):
        open_run(tmp_path)


def test_a_key_of_ones_own_server_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine metrics.example login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert not factory.has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://metrics.example:8080")
    assert factory.has_wandb_key()


def sample(parameter: dict[str, Any]) -> Any:
    """Return one value that a sweep may draw of a parameter."""
    return parameter["values"][-1] if "values" in parameter else parameter.get("value", parameter.get("max"))


def test_the_wandb_sweep_draws_options_that_there_are() -> None:
    plan = yaml.safe_load((config_dir().parent / "scripts" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    assert plan["command"][-1] == "${args_no_hyphens}"
    assert plan["command"][1:4] == ["python", "-m", "idd_seg.train"]
    assert plan["metric"] == {"name": "val/mIoU", "goal": "maximize"}
    drawn = [f"{key}={sample(parameter)}" for key, parameter in plan["parameters"].items()]
    fixed = [word for word in plan["command"][4:] if "=" in word]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose("train", [*fixed, *drawn])
    assert "wandb" in cfg.logger
    assert cfg.loss.idd_weight == plan["parameters"]["loss.idd_weight"]["max"]
