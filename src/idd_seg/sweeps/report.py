"""What came of a search: each trial's end, the file `optimization.yaml`, and a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.table import Table

from idd_seg.errors import UserError
from idd_seg.ops.private_api import job_result
from idd_seg.sweeps.study import FOLDER, NOTE, PRUNED

FILE = "optimization.yaml"


def record(study: optuna.Study, trial: Trial, job: JobReturn) -> None:
    """Tell the study how a job ended: by a finite number, pruned, or failed."""
    if job.hydra_cfg is not None:
        trial.set_user_attr(FOLDER, Path(job.hydra_cfg.hydra.runtime.output_dir).name)
    value = job_result(job)
    if isinstance(value, Exception):
        step = trial.study.trials[trial.number].user_attrs.get(PRUNED)
        if step is not None:
            trial.set_user_attr(NOTE, f"pruned at step {step}")
            study.tell(trial, state=TrialState.PRUNED)
        else:
            _fail(study, trial, str(value).strip().split("\n")[0] or type(value).__name__)
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _fail(study, trial, f"returned {value}, which is no finite number")
    else:
        study.tell(trial, float(value))


def _fail(study: optuna.Study, trial: Trial, reason: str) -> None:
    trial.set_user_attr(NOTE, reason)
    study.tell(trial, state=TrialState.FAIL)
    print(f"trial {trial.number} failed: {reason}")


def write(study: optuna.Study, folder: Path) -> None:
    """Write `optimization.yaml` into the sweep folder, whole or not at all."""
    best = best_of(study)
    content = {
        "study": study.study_name,
        "direction": study.direction.name.lower(),
        "best": None if best is None else _described(best),
        "trials": [_described(trial) for trial in study.get_trials(deepcopy=False)],
    }
    draft = folder / f".{FILE}.tmp"
    draft.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
    draft.replace(folder / FILE)


def _described(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "params": dict(trial.params),
        "folder": trial.user_attrs.get(FOLDER),
        "note": trial.user_attrs.get(NOTE),
    }


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the best of the complete trials, the first of equals."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    return min(complete, key=lambda trial: sign * float(trial.value or 0), default=None)


def conclude(study: optuna.Study, folder: Path) -> float:
    """Write and show what came of the search, and return its best value.

    Raises:
        UserError: if no trial succeeded.
    """
    write(study, folder)
    best = best_of(study)
    Console().print(_table(study, best))
    if best is None or best.value is None:
        raise UserError(f"no trial of the search succeeded; '{folder / FILE}' says why")
    chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
    print(f"best: trial {best.number}, {best.value:.6g}, {chosen} ({folder / FILE})")
    return best.value


def _table(study: optuna.Study, best: FrozenTrial | None) -> Table:
    trials = study.get_trials(deepcopy=False)
    keys = sorted({key for trial in trials for key in trial.params})
    table = Table("trial", "state", "value", *keys, "note")
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.6g}"
        params = [_short(trial.params.get(key)) for key in keys]
        note = "best" if best is not None and trial.number == best.number else trial.user_attrs.get(NOTE, "")
        table.add_row(str(trial.number), trial.state.name.lower(), value, *params, note)
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
