"""Jobs that submitit runs: put back in the queue they go on from their checkpoint, in the same run folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (  # type: ignore[import-untyped]
    BaseSubmititLauncher,
    LocalLauncher,
    SlurmLauncher,
)
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from idd_seg.errors import UserError

RESUME = "resume"


class _Resuming(BaseSubmititLauncher):  # type: ignore[misc]
    """Puts a job that is stopped by SLURM back in the queue, with `resume=auto`."""

    def checkpoint(self, overrides: Sequence[str], *rest: Any) -> DelayedSubmission:
        """Return what is queued in place of the job that is stopped; submitit calls it on SIGUSR2."""
        return DelayedSubmission(self, self.resumed(overrides), *rest)

    def resumed(self, overrides: Sequence[str]) -> list[str]:
        """Return the options of a job that goes on; those of other entry points have nothing to resume."""
        if self.config is None or RESUME not in self.config:
            return list(overrides)
        return [*(o for o in overrides if not o.startswith(f"{RESUME}=")), f"{RESUME}=auto"]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            results: Sequence[JobReturn] = super().launch(job_overrides, initial_job_idx)
        except (FailedJobError, UncompletedJobError) as error:
            # A job whose process was killed leaves no result; what the others left lies in their folders.
            where = self.params["submitit_folder"]
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            raise UserError(
                f"a job of the sweep ended without a result ({reason.strip()}); the logs are in '{where}'. The same "
                f"command with the same hydra.sweep.dir and {RESUME}=auto goes on with what is not finished"
            ) from error
        return results


class Local(_Resuming, LocalLauncher):  # type: ignore[misc]
    """Processes of this machine."""


class Slurm(_Resuming, SlurmLauncher):  # type: ignore[misc]
    """Jobs of SLURM."""


@dataclass(frozen=True)
class DeafChildren:
    """A task whose forked children do not hear the signals of the queue.

    SLURM sends its signal to all processes of a job. A loader's workers inherit submitit's handler: each would put
    the job in the queue.
    """

    task: Callable[[Any], Any]

    def __call__(self, cfg: Any) -> Any:
        os.register_at_fork(after_in_child=_ignore)
        return self.task(cfg)


def _ignore() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
