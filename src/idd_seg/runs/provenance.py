"""What a run folder holds beside metrics and checkpoints: how to do it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg import __version__

# By which options a program has asked for a run, as words of a command line; None where no command could ask for it.
asked_by_program: ContextVar[Sequence[str] | None] = ContextVar("asked_by_program")

PACKAGES = ("torch", "torchvision", "timm", "lightning", "hydra-core", "torchmetrics", "albumentations", "numpy")


def describe_run(cfg: DictConfig, run_dir: Path) -> None:
    """Write `config.yaml`, resolved, and `run.json`: command, seed, versions, git state and machine."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, run_dir / "config.yaml", resolve=True)
    write_json(
        run_dir / "run.json",
        {
            "command": _command(),
            "seed": cfg.get("seed"),
            "versions": versions(),
            "git": git_state(Path(__file__).parent),
            "machine": machine(),
            "state": "running",
            "error": None,
        },
    )


def _command() -> list[str] | None:
    try:
        words = asked_by_program.get()
    except LookupError:
        return [Path(sys.argv[0]).name, *sys.argv[1:]]
    return None if words is None else ["train.py", *words]


def note_state(run_dir: Path, state: str, error: str | None = None) -> None:
    """Write into `run.json` how a run has ended: `finished`, `failed`, `interrupted` or `pruned`."""
    path = run_dir / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**content, "state": state, "error": error})


def versions() -> dict[str, str]:
    """Return the versions of this program, of Python and of what the results depend on."""
    found = {"idd-seg": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and whether the tree was changed, or None outside a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """Return the system, the processor count, the threads of PyTorch and the name of the GPU."""
    import torch  # here: programs that only look at runs, such as report, begin in a fraction of the time without it

    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON beside the target and rename it, so that no half file is ever seen."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
