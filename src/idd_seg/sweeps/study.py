"""A study of Optuna on disk: opened by the sweep, and by each job that reports how far it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from idd_seg.errors import ConfigError
from idd_seg.ops.private_api import trial_id
from idd_seg.sweeps.space import Space

# Attributes of a study, and of its trials.
SPACE = "space"
# Of the study in a journal, which holds no other.
ONLY = "search"
SWEEP, FOLDER, NOTE, INTERRUPTED, PRUNED = "sweep", "folder", "note", "interrupted", "pruned"


def open_storage(storage: str) -> BaseStorage:
    """Open a journal file, or a database by its URL.

    Raises:
        ConfigError: if it can't be opened.
    """
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        if "://" in storage:
            return RDBStorage(storage)
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    except Exception as error:  # of SQLAlchemy, of the database's driver, or of the file
        raise ConfigError(f"hydra.sweeper.storage={storage} can't be opened: {str(error).splitlines()[0]}") from error


def open_study(storage: str, name: str | None, direction: str, pruner: BasePruner, space: Space) -> optuna.Study:
    """Make a study, or take up the one of this name.

    Raises:
        ConfigError: if that one searched something else, or for a database without the name of a study.
    """
    if name is None and "://" in storage:
        raise ConfigError(f"hydra.sweeper.storage={storage} needs a name for the search: hydra.sweeper.study_name=...")
    name = name or ONLY
    if direction not in ("maximize", "minimize"):
        raise ConfigError(f"hydra.sweeper.direction must be maximize or minimize, got '{direction}'")
    kind: Literal["maximize", "minimize"] = "maximize" if direction == "maximize" else "minimize"
    study = optuna.create_study(
        storage=open_storage(storage),
        study_name=name,
        direction=kind,
        pruner=pruner,
        load_if_exists=True,
    )
    before = study.user_attrs.get(SPACE)
    if before is None:
        study.set_user_attr(SPACE, space.described())
    elif before != space.described() or study.direction.name.lower() != direction:
        raise ConfigError(
            f"the study '{name}' in '{storage}' searched something else: {study.direction.name.lower()} over "
            f"{', '.join(f'{key}: {value}' for key, value in before.items())}; "
            "search the same to go on with it, or choose another hydra.sweep.dir"
        )
    return study


def begin(study: optuna.Study, space: Space, sweep_dir: str) -> Trial:
    """Draw the next trial of a sweep."""
    trial = study.ask(dict(space.searched))
    trial.set_user_attr(SWEEP, sweep_dir)
    return trial


def left_running(study: optuna.Study, space: Space, sweep_dir: str, *, resume: bool) -> list[Trial]:
    """Return the trials of this sweep that an earlier process began and did not end, if they are to go on.

    The others count as failed, and not towards the number of trials; what they drew is tried again.
    """
    going_on = []
    for frozen in study.get_trials(states=[TrialState.RUNNING]):
        if frozen.user_attrs.get(SWEEP) != sweep_dir:
            continue  # of another sweep in the same database
        trial = Trial(study, trial_id(frozen))
        if resume and set(frozen.params) == set(space.searched):
            going_on.append(trial)
        else:
            trial.set_user_attr(INTERRUPTED, True)
            study.enqueue_trial(frozen.params)
            trial.set_user_attr(NOTE, "interrupted")
            study.tell(trial, state=TrialState.FAIL)
    return going_on


def counted(study: optuna.Study) -> int:
    """Return how many trials have ended by themselves, well or not."""
    return sum(t.state.is_finished() and INTERRUPTED not in t.user_attrs for t in study.get_trials(deepcopy=False))


class RunningTrial(Trial):
    """A trial as its job sees it."""

    def should_prune(self) -> bool:
        """Tell whether the run shall stop, and keep at which step in the study.

        A sweep does not see the exception of a run that takes several processes.
        """
        stop = super().should_prune()
        if stop:
            self.set_user_attr(PRUNED, self.study.trials[self.number].last_step)
        return stop


def running_trial(
    storage: str | None, study_name: str | None, number: int | None, pruner: BasePruner | None
) -> RunningTrial:
    """Return the trial that this job runs, to report to.

    Raises:
        ConfigError: if the job is of no search.
    """
    if storage is None or number is None or pruner is None:
        raise ConfigError("callbacks=pruning is for searches: -m hydra/sweeper=optuna; leave it out of other runs")
    name = study_name or ONLY
    # A sampler that draws nothing by itself: the sweep has drawn already.
    study = optuna.load_study(study_name=name, storage=open_storage(storage), sampler=RandomSampler(), pruner=pruner)
    found: Any = next((t for t in study.get_trials(deepcopy=False) if t.number == number), None)
    if found is None or found.state != TrialState.RUNNING:
        raise ConfigError(f"the study '{name}' in '{storage}' has no running trial {number}")
    return RunningTrial(study, trial_id(found))
