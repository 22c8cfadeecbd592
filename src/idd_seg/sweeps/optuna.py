"""hydra/sweeper=optuna: a search whose trials are jobs of a sweep, kept on disk and taken up again after a stop."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from idd_seg.errors import ConfigError, UserError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import Trial

    from idd_seg.sweeps.space import Space

NO_PRUNER = "optuna.pruners.NopPruner"
# Values that are drawn have so many digits that a folder named after them may be refused by the file system.
BY_NUMBER = "hydra.sweep.subdir=${hydra.job.num}"


class OptunaSweeper(Sweeper):
    """Tries values of the searched options in trials, each a job whose returned number is to be as large as possible.

    Trial N is the job with the number N. A trial whose job fails, or returns NaN, counts as failed, and the search goes
    on. Every state lies in the storage: the same command with the same `hydra.sweep.dir` goes on where it stopped. A
    trial that was running then goes on from its checkpoint with `resume=auto`; otherwise it counts for nothing.

    Args:
        direction: `maximize` or `minimize`.
        n_trials: trials in all, with those of earlier starts.
        n_jobs: trials at once; None is what the launcher runs at once on this machine.
        storage: a journal file, or the URL of a database.
        study_name: of the study, which a database needs.
        sampler, pruner: configurations of what Optuna draws and stops by; a partial sampler gets {key: values}.
        params: options that are searched or set, besides those of the command line.
    """

    def __init__(
        self,
        direction: str,
        n_trials: int,
        n_jobs: int | None,
        storage: str,
        study_name: str | None,
        sampler: DictConfig,
        pruner: DictConfig,
        params: DictConfig,
    ) -> None:
        self.direction, self.n_trials, self.n_jobs = direction, n_trials, n_jobs
        self.storage, self.study_name = storage, study_name
        self.sampler, self.pruner = sampler, pruner
        self.params = {str(key): value for key, value in params.items()}
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("hydra/sweeper=optuna needs optuna: pip install 'idd-seg[optuna]'")
        for name, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if (value is not None or name == "n_trials") and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"hydra.sweeper.{name} must be a whole number >= 1, got '{value}'")
        if self.pruner["_target_"] != NO_PRUNER and OmegaConf.select(config, "callbacks.pruning") is None:
            raise ConfigError(
                "hydra.sweeper.pruner stops trials by what callbacks=pruning reports; choose it, too: callbacks=pruning"
            )
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> float:
        """Run what is left of the trials, write `optimization.yaml`, and return the best value.

        Raises:
            UserError: if no trial succeeded, or for a search that can't be.
        """
        from idd_seg.sweeps.report import conclude
        from idd_seg.sweeps.study import open_study

        assert self.config is not None
        space = self._space(arguments)
        pruner = _made(self.pruner, "hydra.sweeper.pruner")
        folder = Path(self.config.hydra.sweep.dir)
        with _alone_in(folder):
            OmegaConf.save(self.config, folder / "multirun.yaml")
            study = open_study(self.storage, self.study_name, self.direction, pruner, space)
            study.sampler, most = self._sampler(space, len(study.get_trials(deepcopy=False)))
            self._run(study, space, folder, most)
            return conclude(study, folder)

    def _space(self, arguments: list[str]) -> Space:
        from idd_seg.sweeps.space import read_space

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = read_space(
            parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        )
        # An unknown option would make every trial fail.
        self.validate_batch_is_legal(space.samples())
        return space

    def _sampler(self, space: Space, drawn: int) -> tuple[Any, int]:
        """Return the sampler, and how many trials it has at most."""
        node = self.sampler.copy()
        if not node.get("_partial_") and isinstance(node.get("seed"), int):
            # A search that is taken up again would draw what it drew at first.
            node.seed += drawn
        made = _made(node, "hydra.sweeper.sampler")
        if not callable(made):
            return made, self.n_trials
        grid = space.grid()
        return made(grid), min(self.n_trials, math.prod(len(values) for values in grid.values()))

    def _run(self, study: optuna.Study, space: Space, folder: Path, most: int) -> None:
        from idd_seg.sweeps.report import record, write
        from idd_seg.sweeps.study import begin, counted, left_running

        assert self.config is not None
        at_once = self.n_jobs or int(getattr(self.launcher, "at_once", 1))
        resume = OmegaConf.select(self.config, "resume") == "auto"
        place = str(folder.resolve())
        waiting = left_running(study, space, place, resume=resume)
        while waiting or counted(study) < most:
            trials, waiting = waiting[:at_once], waiting[at_once:]
            new = min(at_once - len(trials), most - counted(study) - len(trials) - len(waiting))
            trials += [begin(study, space, place) for _ in range(new)]
            for part in _consecutive(trials):
                for trial, job in zip(part, self._launch(part, space), strict=True):
                    record(study, trial, job)
            write(study, folder)

    def _launch(self, trials: Sequence[Trial], space: Space) -> Sequence[JobReturn]:
        assert self.launcher is not None
        assert self.config is not None
        chosen = any(option.startswith("hydra.sweep.subdir=") for option in self.config.hydra.overrides.hydra)
        more = [] if chosen else [BY_NUMBER]
        jobs = [[*space.overrides({k: trial.params[k] for k in space.searched}), *more] for trial in trials]
        return self.launcher.launch(jobs, initial_job_idx=trials[0].number)


def _made(node: DictConfig, where: str) -> Any:
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:  # whatever a constructor raises
        raise ConfigError(f"{where}: {error.__cause__ or error}") from error


def _alone_in(folder: Path) -> FileLock:
    """Hold a sweep folder: what runs in it is then ours, or of a process that has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".sweep.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another process sweeps in '{folder}'; wait for it, or choose another hydra.sweep.dir"
        ) from None
    return lock


def _consecutive(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Split trials where their numbers have gaps: a launcher numbers its jobs one after the other."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    for _, part in itertools.groupby(enumerate(ordered), key=lambda pair: pair[1].number - pair[0]):
        yield [trial for _, trial in part]
