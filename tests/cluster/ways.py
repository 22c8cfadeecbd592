"""The ways to start a run on a cluster, each as a user would, with a training that can be stopped where one likes."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.cluster.slurm import Cluster
from tests.cluster.steps import FAST, lost, made

TOP = Path(__file__).parents[2]
STEPS = 60
OPTIONS = (
    *("data=shapes", "student=small", "loss=ce", "deterministic=true", "data.size=[32,32]", "data.train_length=64"),
    *("data.val_length=4", "data.batch_size=4", "data.num_workers=0", "trainer.accelerator=cpu"),
    *(f"trainer.max_steps={STEPS}", "trainer.val_check_interval=100000", "trainer.timeout_minutes=2"),
)
CALLBACK = "+callbacks.steps={{_target_: tests.cluster.steps.Steps, folder: '${{run_dir}}', seconds: {seconds}}}"
TWO = ("trainer=ddp", "trainer.devices=2", "data.batch_size=2")
SLOW = CALLBACK.format(seconds=4)
GPUS = ("--gpus-per-node=1", "--cpus-per-task=1", "--mem=1G")


@dataclass
class Way:
    """One way to start a run, and what it has started.

    Attributes:
        name: as in the table of docs/clusters.md.
        runs: run folders with the names of their references.
        time: minutes and seconds of a job's time and of the notice before its end, or None.
        more: options of the training.
        in_a_terminal: whether a terminal waits for it; torchrun is then started without SLURM.
    """

    name: str
    cluster: Cluster
    folder: Path
    time: tuple[int, int] | None = None
    more: tuple[str, ...] = ()
    in_a_terminal: bool = False
    jobs: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def runs(self) -> dict[Path, str]:
        """Return the run folders, each with the reference that it must equal."""
        if self.name == "submitit":
            return {self.folder / "0": "seed0"}
        if self.name == "sweep.sbatch":
            return {self.folder / f"{seed}": f"seed{seed}" for seed in (0, 1)}
        return {self.folder: "two" if self.name in ("multinode.sbatch", "torchrun") else "seed0"}

    def start(self) -> None:
        """Start it, or the same once more."""
        minutes, notice = self.time or (20, 60)
        if self.in_a_terminal:
            words = {"srun": self._srun, "submitit": self._submitit, "torchrun": self._torchrun}[self.name](
                minutes, notice
            )
            log = (self.folder.parent / f"{self.name}.log").open("a")
            self.process = subprocess.Popen(
                words, cwd=self.folder.parent, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
            return
        words = [f"--time={minutes}", f"--signal=B:USR1@{notice}", f"--output={self.folder.parent}/{self.name}.log"]
        done = subprocess.run(
            ["sbatch", *words, *self._script()],
            cwd=self.folder.parent,
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self.jobs = re.findall(r"\d+", done.stdout)

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options of the training, but for what the way itself sets."""
        return (*OPTIONS, SLOW, *self.more)

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        modules = os.pathsep.join([str(TOP), str(TOP / "src")])
        own = {"PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        return {**self.cluster.environment, **own}

    def _script(self) -> list[str]:
        folder, script = str(self.folder), f"scripts/slurm/{self.name}"
        if self.name == "train.sbatch":
            return [*GPUS, script, folder, *self.options]
        if self.name == "sweep.sbatch":
            number = "hydra.sweep.subdir=${hydra:job.num}"
            return [*GPUS, script, folder, *self.options, "seed=0,1", "hydra.launcher.n_jobs=2", number]
        two = ["--ntasks-per-node=1", *GPUS] if self.name == "multinode.sbatch" else GPUS
        script = script if self.name == "multinode.sbatch" else str(Path(__file__).with_name("torchrun.sbatch"))
        return [*two, script, folder, *self.options, "data.batch_size=2"]

    def _srun(self, minutes: int, notice: int) -> list[str]:
        # -X hands ctrl-C on; else two of them within a second kill the tasks at once.
        words = ["srun", "-X", "--ntasks=1", f"--time={minutes}", f"--signal=USR1@{notice}", *GPUS]
        run = [sys.executable, "-m", "idd_seg.train", f"hydra.run.dir={self.folder}", "resume=auto"]
        return [*words, *run, *self.options]

    def _torchrun(self, minutes: int, notice: int) -> list[str]:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return [*start, "-m", "idd_seg.train", f"hydra.run.dir={self.folder}", "resume=auto", *self.options, *TWO]

    def _submitit(self, minutes: int, notice: int) -> list[str]:
        launcher = ("hydra/launcher=submitit_slurm", f"hydra.launcher.timeout_min={minutes}")
        launcher = (*launcher, f"hydra.launcher.signal_delay_s={notice}", "hydra.launcher.mem_gb=1")
        launcher = (*launcher, "hydra.launcher.cpus_per_task=1", "hydra.sweep.subdir=${hydra:job.num}")
        place = (f"hydra.sweep.dir={self.folder}", "resume=auto", "seed=0")
        return [sys.executable, "-m", "idd_seg.train", "-m", *launcher, *place, *self.options]

    def queued(self) -> list[str]:
        """Return the numbers of its jobs that are in the queue."""
        if not self.in_a_terminal:
            return self.jobs
        name = "train" if self.name == "submitit" else "python"
        return self.cluster.run("squeue", "-h", "--array", f"--name={name}", "-o", "%i").split()

    def trains(self) -> bool:
        """Tell whether all its runs have begun to train, and will not end for some minutes."""
        return all(len(made(folder)) > FAST for folder in self.runs)

    def ended(self) -> bool:
        """Tell whether nothing of it is queued or runs any more."""
        if self.process is not None:
            return self.process.poll() is not None and not (self.name == "submitit" and self.queued())
        states = self.cluster.run("squeue", "-h", "-j", ",".join(self.jobs), "-o", "%T", check=False).split()
        return not states

    def finished(self) -> bool:
        """Tell whether all its runs have their result."""
        return all((folder / "metrics.json").is_file() for folder in self.runs)

    def kept(self, references: dict[str, str]) -> tuple[bool, int]:
        """Tell whether all runs equal runs that were never stopped, and how many steps were made twice."""
        same = [self.finished() and digest(folder) == references[name] for folder, name in self.runs.items()]
        return all(same), sum(lost(folder) for folder in self.runs)

    def interrupt(self) -> None:
        """Press ctrl-C in the terminal that waits."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)


WAYS = ("train.sbatch", "sweep.sbatch", "multinode.sbatch", "srun", "submitit", "torchrun")


def digest(folder: Path) -> str:
    """Return a hash of all that training has made: weights, optimizer, schedule and step."""
    saved = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    found = hashlib.sha256()
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        _feed(found, name, saved[name])
    return found.hexdigest()


def _feed(found: Any, name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            _feed(found, f"{name}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            _feed(found, f"{name}.{index}", one)
    else:
        found.update(f"{name}={value!r}".encode())


def references(folder: Path) -> dict[str, str]:
    """Train without a stop, by one process with two seeds, and by two processes; return the hashes."""
    fast = CALLBACK.format(seconds=0)
    cases = {
        "seed0": ("seed=0",),
        "seed1": ("seed=1",),
        "two": TWO,
    }
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "src")]), "OMP_NUM_THREADS": "1"}
    for name, options in cases.items():
        words = [sys.executable, "-m", "idd_seg.train", *OPTIONS, fast, *options, f"hydra.run.dir={folder / name}"]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
    return {name: digest(folder / name) for name in cases}
