"""Where the jobs of a sweep run: several at once on this machine, or on a cluster.

The work is done by Hydra's own plugins for joblib and submitit; here they get GPUs of their own, and clear errors.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from idd_seg.errors import ConfigError
from idd_seg.sweeps.devices import OnOwnDevices, jobs_at_once, visible_devices


class WrappedLauncher(Launcher):
    """Hands everything to the launcher that `make` builds; what is missing is refused before any job.

    Attributes:
        at_once: how many jobs run at once, as far as this machine decides it.
    """

    at_once = 1
    inner: Launcher

    def make(self, config: DictConfig, task: TaskFunction) -> tuple[Launcher, TaskFunction]:
        """Return the launcher that does the work, and the task as it shall run it."""
        raise TypeError(f"{type(self).__name__} does not implement make")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.inner, task = self.make(config, task_function)
        self.inner.setup(hydra_context=hydra_context, task_function=task, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.inner.launch(job_overrides, initial_job_idx)


class JoblibLauncher(WrappedLauncher):
    """Processes on this machine, each with GPUs of its own; without GPUs they share the cores evenly.

    Args:
        n_jobs: jobs at once; None is one for each GPU, and two without a GPU.
        gpus_per_job: GPUs that a job sees.
    """

    def __init__(self, n_jobs: int | None, gpus_per_job: int) -> None:
        self.n_jobs, self.gpus_per_job = n_jobs, gpus_per_job

    def make(self, config: DictConfig, task: TaskFunction) -> tuple[Launcher, TaskFunction]:
        plugin = needed("hydra_plugins.hydra_joblib_launcher.joblib_launcher", "hydra/launcher=joblib", "joblib")
        devices = devices_for(config)
        self.at_once = jobs_at_once(self.n_jobs, self.gpus_per_job, devices)
        # Jobs are long: none is handed out before a process is free for it.
        inner: Launcher = plugin.JoblibLauncher(n_jobs=self.at_once, pre_dispatch="n_jobs", batch_size=1)
        return inner, OnOwnDevices(task, tuple(devices), self.gpus_per_job)


class SubmititLocalLauncher(WrappedLauncher):
    """All jobs at once as processes of this machine, by the way that SLURM jobs take: to try it without a cluster."""

    def __init__(self, gpus_per_job: int, **params: Any) -> None:
        self.gpus_per_job, self.params = gpus_per_job, params

    def make(self, config: DictConfig, task: TaskFunction) -> tuple[Launcher, TaskFunction]:
        jobs = needed("idd_seg.sweeps.submitit_jobs", "hydra/launcher=submitit_local", "slurm")
        # Found here, because submitit hides them from its processes.
        devices = devices_for(config)
        jobs_at_once(None, self.gpus_per_job, devices)
        inner: Launcher = jobs.Local(**self.params)
        return inner, jobs.DeafChildren(OnOwnDevices(task, tuple(devices), self.gpus_per_job))


class SubmititSlurmLauncher(WrappedLauncher):
    """Each job is a job of SLURM, which gives it its GPUs."""

    def __init__(self, **params: Any) -> None:
        self.params = params

    def make(self, config: DictConfig, task: TaskFunction) -> tuple[Launcher, TaskFunction]:
        jobs = needed("idd_seg.sweeps.submitit_jobs", "hydra/launcher=submitit_slurm", "slurm")
        if shutil.which("srun") is None:
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no srun on this machine; start the sweep on a login node of "
                "the cluster, or try it here by hydra/launcher=submitit_local"
            )
        # One process: a run with several devices starts the others itself. srun does not take the number of cores over
        # from its job, since SLURM 22.05, and would bind the process to one.
        cores = self.params.get("cpus_per_task")
        own = {} if cores is None else {"srun_args": [f"--cpus-per-task={cores}"]}
        inner: Launcher = jobs.Slurm(nodes=1, tasks_per_node=1, **{**own, **self.params})
        return inner, jobs.DeafChildren(task)


def devices_for(config: DictConfig) -> list[str]:
    """Return the GPUs that jobs may take; none where they train on the CPU."""
    return [] if OmegaConf.select(config, "trainer.accelerator") == "cpu" else visible_devices()


def needed(module: str, option: str, extra: str) -> Any:
    """Import what an option needs.

    Raises:
        ConfigError: that says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{option} needs {error.name or module}: pip install 'idd-seg[{extra}]'") from error
