"""Sweeping over the task of `app` as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[2]


def sweep(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m tests.sweeps.app -m` in a folder; the sweep folder is `sweep` in it."""
    hidden = {"HYDRA_FULL_ERROR", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", *environment}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    env = {
        **kept,
        "PYTHONPATH": f"{TOP}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "TMPDIR": str(folder),
        **environment,
    }
    command = [sys.executable, "-m", "tests.sweeps.app", "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def search(folder: Path, *arguments: str, trials: int = 4, **environment: str) -> subprocess.CompletedProcess[str]:
    """Sweep by Optuna."""
    return sweep(folder, "hydra/sweeper=optuna", f"hydra.sweeper.n_trials={trials}", *arguments, **environment)


def found(folder: Path) -> Any:
    """Return what a search wrote."""
    return yaml.safe_load((folder / "sweep" / "optimization.yaml").read_text())


def states(folder: Path) -> list[str]:
    return [trial["state"] for trial in found(folder)["trials"]]
