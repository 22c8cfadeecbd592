"""Trials are stopped by what they report at each validation, all ranks at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from idd_seg.callbacks.pruning import Pruning
from idd_seg.errors import ConfigError, Pruned
from tests.sweeps.run_app import TOP

optuna = pytest.importorskip("optuna")

from idd_seg.sweeps.study import PRUNED, open_storage, running_trial  # noqa: E402


class Rising(L.LightningModule):
    """Has the mIoU `slope` x step at each validation."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.weight = slope, torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/mIoU", self.slope * self.global_step)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(module: L.LightningModule, callback: L.Callback, **options: Any) -> L.Trainer:
    trainer = L.Trainer(
        **{"max_steps": 4, "accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 2, **options},
        val_check_interval=1,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(torch.ones(8, 1), batch_size=1)
    trainer.fit(module, loader, DataLoader(torch.ones(2, 1)))
    return trainer


class Study:
    """A study in a file; each trial is opened as a job opens it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "study.journal")
        self.study = optuna.create_study(storage=open_storage(self.path), study_name="s", direction="maximize")
        self.pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)

    def run(self, slope: float, **options: Any) -> Any:
        number = self.study.ask().number
        callback = Pruning(running_trial(self.path, "s", number, self.pruner), "val/mIoU")
        try:
            fit(Rising(slope), callback, **options)
        except Pruned:
            self.study.tell(number, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(number, 4 * slope)
        return self.study.trials[number]


def test_every_validation_is_reported_and_a_poor_trial_stops(tmp_path: Path) -> None:
    study = Study(tmp_path)
    good, poor, better = study.run(0.1), study.run(0.01), study.run(0.2)
    assert good.state.name == better.state.name == "COMPLETE"
    assert good.intermediate_values == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4})
    assert poor.state.name == "PRUNED"
    assert poor.intermediate_values == pytest.approx({1: 0.01})
    assert poor.user_attrs == {PRUNED: 1}
    assert good.user_attrs == {}


def test_the_last_validation_prunes_nothing(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.run(0.1)
    late = Study.__new__(Study)
    late.__dict__.update(study.__dict__)
    late.pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=4)
    assert late.run(0.01).state.name == "COMPLETE"


def test_hyperband_stops_trials_too(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=4, reduction_factor=2)
    states = [study.run(slope).state.name for slope in (0.4, 0.3, 0.2, 0.1, 0.05, 0.02)]
    assert "PRUNED" in states
    assert states[0] == "COMPLETE"


def test_another_metric_is_refused_by_name(tmp_path: Path) -> None:
    study = Study(tmp_path)
    trial = running_trial(study.path, "s", study.study.ask().number, study.pruner)
    with pytest.raises(ConfigError, match="monitor=val/IoU is not validated; there is val/mIoU"):
        fit(Rising(0.1), Pruning(trial, "val/IoU"), num_sanity_val_steps=0)


def test_a_run_of_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for searches"):
        running_trial(None, None, None, None)
    study = Study(tmp_path)
    with pytest.raises(ConfigError, match="no running trial 7"):
        running_trial(study.path, "s", 7, study.pruner)


@pytest.mark.slow
def test_all_ranks_follow_rank_zero(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_ranks.py")
    command = [sys.executable, str(script), str(tmp_path)]
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["pruned at step 2"] * 2
    assert (tmp_path / "reports").read_text().split() == ["0", "0"]
