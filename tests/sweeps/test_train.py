"""Sweeps of real trainings, and the ready search spaces."""

from __future__ import annotations

import json
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from idd_seg.config.groups import config_dir
from tests.helpers import TINY, clean_error, run, run_here

SMALL = (*TINY, "student=small", "loss=ce", "trainer.val_check_interval=1")
SPACES = sorted(path.stem for path in (config_dir() / "hparams").glob("*.yaml"))


@pytest.mark.parametrize("name", SPACES)
def test_a_ready_space_names_options_that_exist(name: str) -> None:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        params = hydra.compose("train", [f"hparams={name}"], return_hydra_config=True).hydra.sweeper.params
        assert params
        parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
        assert all(override.is_sweep_override() for override in parsed)
        # An unknown key is refused.
        hydra.compose("train", [f"hparams={name}", *(f"{key}=1" for key in params)])


def test_a_search_over_trainings_prunes_and_writes_its_best(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from idd_seg.sweeps.study import open_storage

    result = run(
        "train",
        "-m",
        *SMALL,
        "hydra/sweeper=optuna",
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=1",
        "hydra.sweeper.pruner.n_warmup_steps=0",
        "callbacks=pruning",
        "hydra.sweeper.n_trials=3",
        "hydra/sweeper/sampler=grid",
        "optimizer.lr=choice(0.0,0.01,1e-7)",
        "hydra.sweep.dir=sweep",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    content = yaml.safe_load((tmp_path / "sweep" / "optimization.yaml").read_text())
    assert len(content["trials"]) == 3
    for trial in content["trials"]:
        assert trial["state"] in ("complete", "pruned")
        config = yaml.safe_load((tmp_path / "sweep" / trial["folder"] / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == trial["params"]["optimizer.lr"]
        assert config["callbacks"]["pruning"]["trial"]["number"] == trial["trial"]
    study = optuna.load_study(study_name="search", storage=open_storage(str(tmp_path / "sweep" / "study.journal")))
    reported = [set(trial.intermediate_values) for trial in study.trials if trial.state.name == "COMPLETE"]
    assert reported
    assert all(steps == {1, 2, 3} for steps in reported)
    complete = [trial for trial in content["trials"] if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["value"])
    metrics = json.loads((tmp_path / "sweep" / best["folder"] / "metrics.json").read_text())
    assert content["best"]["value"] == pytest.approx(metrics["best"]["miou"])


def test_pruning_without_a_search_is_refused(tmp_path: Path) -> None:
    message = clean_error(run_here("train", *SMALL, "callbacks=pruning", "hydra.run.dir=out", cwd=tmp_path))
    assert "callbacks=pruning is for searches" in message


def test_a_misspelt_key_of_a_search_is_an_unknown_option(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = ("-m", *SMALL, "hydra/sweeper=optuna", "optimizer.lrr=interval(0,1)", "hydra.sweep.dir=sweep")
    assert "there is no option 'optimizer.lrr'" in clean_error(run_here("train", *options, cwd=tmp_path))
    assert not (tmp_path / "sweep" / "0").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_trainings_at_once_give_what_they_give_alone(launcher: str, tmp_path: Path) -> None:
    # The same number of threads: sums of floating-point numbers depend on it.
    env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    alone = run("train", *SMALL, "seed=2", "hydra.run.dir=alone", cwd=tmp_path, env=env)
    assert alone.returncode == 0, alone.stderr
    options = (f"hydra/launcher={launcher}", "seed=1,2", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}")
    result = run("train", "-m", *SMALL, *options, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    found = {seed: json.loads((tmp_path / "sweep" / seed / "metrics.json").read_text()) for seed in ("1", "2")}
    expected = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert found["2"]["last"]["iou"] == pytest.approx(expected["last"]["iou"])
    assert found["1"]["last"]["iou"] != found["2"]["last"]["iou"]
