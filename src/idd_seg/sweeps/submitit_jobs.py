"""Jobs that submitit runs: put back in the queue they go on from their checkpoint, in the same run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # type: ignore[import-untyped]
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (  # type: ignore[import-untyped]
    BaseSubmititLauncher,
    LocalLauncher,
    SlurmLauncher,
)
from omegaconf import OmegaConf
from submitit.core.utils import (
    FailedJobError,
    FailedSubmissionError,
    UncompletedJobError,
    cloudpickle_dump,
    temporary_save_path,
)
from submitit.helpers import DelayedSubmission

from idd_seg.distributed.environment import restarts
from idd_seg.errors import ConfigError, JobFailed, Pruned, UserError
from idd_seg.ops.private_api import job_result
from idd_seg.sweeps import slurm_queue
from idd_seg.sweeps.submitit_results import Look, Task, conclude, local_states, slurm_states, wait_for

RESUME = "resume"
FOLDER, TIMES = "submitit_folder", "max_num_timeout"
WARNING = signal.SIGUSR2  # which submitit lets SLURM send before a job's time is up


class _Resuming(BaseSubmititLauncher):  # type: ignore[misc]
    """Queues the jobs, waits for them, and puts one that is stopped back in the queue, with `resume=auto`."""

    config: Any
    look: Look = staticmethod(local_states)
    cancel = "kill"

    def __call__(self, sweep_overrides: Sequence[str], *rest: Any) -> JobReturn:
        """Do one job, within it; a job that came back goes on, whoever put it back."""
        overrides = self.resumed(sweep_overrides) if restarts() else list(sweep_overrides)
        requeue = signal.getsignal(WARNING)
        with _stoppable():
            try:
                job: JobReturn = super().__call__(overrides, *rest)
            except SystemExit as stop:
                job = self._stopped(stop, requeue)
        if isinstance(job_result(job), Exception) and not isinstance(job_result(job), Pruned):
            _leave_failed(job)
        return job

    def _stopped(self, stop: SystemExit, requeue: Any) -> JobReturn:
        """Put this job back, now that the run has saved: at SLURM's warning, and where it must make room.

        Raises:
            SystemExit: that ends the job, unless it has reached its time too often.
        """
        if stop.code == 128 + WARNING and callable(requeue):
            try:
                requeue(WARNING, None)  # counts, writes what is queued, and ends this process
            except UncompletedJobError:
                reason = (
                    f"it has reached its time more often than hydra.launcher.{TIMES}={self.params.get(TIMES)} times; "
                    f"its checkpoint is kept, and the same command with {RESUME}=auto goes on with it"
                )
                print(f"error: {reason}", file=sys.stderr)
                return JobReturn(status=JobStatus.FAILED, _return_value=JobFailed(reason))
        if stop.code == 128 + signal.SIGTERM and slurm_queue.being_preempted():
            slurm_queue.put_back()
        raise stop

    def checkpoint(self, overrides: Sequence[str], *rest: Any) -> DelayedSubmission:
        """Return what is queued in place of the job that is stopped; submitit asks for it."""
        return DelayedSubmission(self, self.resumed(overrides), *rest)

    def resumed(self, overrides: Sequence[str]) -> list[str]:
        """Return the options of a job that goes on; those of other entry points have nothing to resume."""
        if self.config is None or RESUME not in self.config:
            return list(overrides)
        return [*(o for o in overrides if not o.startswith(f"{RESUME}=")), f"{RESUME}=auto"]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Queue the jobs, wait for all of them, and say what came of each.

        Raises:
            UserError: if they can't be queued. A job that fails, or is lost, is a JobReturn that says so.
        """
        sweep = Path(str(self.config.hydra.sweep.dir))
        sweep.mkdir(parents=True, exist_ok=True)
        numbers = [initial_job_idx + index for index in range(len(job_overrides))]
        calls = [
            (list(words), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, words in zip(numbers, job_overrides, strict=True)
        ]
        try:
            jobs = self._executor().map_array(self, *zip(*calls, strict=True))
        except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            raise UserError(
                f"the jobs could not be queued, and none has begun: {reason.strip()} (hydra.launcher.partition, "
                "account, qos, constraint, gpus_per_node; all are in conf/hydra/launcher/submitit_slurm.yaml)"
            ) from error
        tasks = [
            Task(number, tuple(words), job) for number, words, job in zip(numbers, job_overrides, jobs, strict=True)
        ]
        try:
            ended = wait_for(tasks, type(self).look)
        except KeyboardInterrupt:
            ids = " ".join(sorted({job.job_id.partition("_")[0] for job in jobs}))
            print(f"the jobs go on without this command; to end them: {self.cancel} {ids}", file=sys.stderr)
            raise
        return conclude(ended, sweep)

    def _executor(self) -> Any:
        """Build submitit's executor; options that all clusters share have no prefix.

        Raises:
            ConfigError: for an option that submitit does not know.
        """
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        named = {key if key in shared else f"{self._EXECUTOR}_{key}": value for key, value in self.params.items()}
        times = {key: named.pop(key) for key in list(named) if key.endswith(TIMES)}
        folder = named.pop(FOLDER)
        executor = submitit.AutoExecutor(folder=folder, cluster=self._EXECUTOR, **times)
        try:
            executor.update_parameters(**named)
        except (ValueError, TypeError, NameError) as error:
            raise ConfigError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
        return executor


class Local(_Resuming, LocalLauncher):  # type: ignore[misc]
    """Processes of this machine."""


class Slurm(_Resuming, SlurmLauncher):  # type: ignore[misc]
    """Jobs of SLURM."""

    look = staticmethod(slurm_states)
    cancel = "scancel"


def _leave_failed(job: JobReturn) -> None:
    """End this process with exit code 1, so that SLURM calls the job failed, after its result is written."""
    with temporary_save_path(submitit.JobEnvironment().paths.result_pickle) as draft:
        cloudpickle_dump(("success", job), draft)
    raise SystemExit(1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGUSR2 end this process by an exception, until a run hears them itself.

    submitit would let SIGTERM pass: a job that is told to end while it starts would then train until it is killed.
    """
    told: list[int] = []

    def stop(number: int, frame: Any) -> None:
        if not told:  # SLURM sends SIGTERM twice
            told.append(number)
            raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, WARNING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class DeafChildren:
    """A task whose forked children do not hear the signals of the queue.

    SLURM sends its signal to all processes of a job. A loader's workers inherit the handlers: each would put the job
    in the queue.
    """

    task: Callable[[Any], Any]

    def __call__(self, cfg: Any) -> Any:
        os.register_at_fork(after_in_child=_ignore)
        return self.task(cfg)


def _ignore() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
