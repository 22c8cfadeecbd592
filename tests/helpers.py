"""Running the program as a user does."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import call

TINY = (
    "data.size=[32,32]",
    "data.train_length=16",
    "data.val_length=4",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_steps=3",
    "trainer.log_every_n_steps=1",
    "teacher.training.max_steps=2",
)


def run(
    module: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `python -m idd_seg.<module>` in `cwd`, with a cache of teachers of its own beside it."""
    environment = {**os.environ, "IDD_SEG_CACHE": str(cwd / "cache"), **(env or {})}
    environment.pop("HYDRA_FULL_ERROR", None)
    environment.update(env or {})
    command = [sys.executable, "-m", f"idd_seg.{module}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def run_here(
    module: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Do what `run` does within this process, without the seconds that a new interpreter takes for its imports."""
    entry = importlib.import_module(f"idd_seg.{module}")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in {"IDD_SEG_CACHE": str(cwd / "cache"), **(env or {})}.items():
            patch.setenv(name, value)
        code = call(entry, *arguments, folder=cwd, patch=patch)
    return subprocess.CompletedProcess([module, *arguments], code, out.getvalue(), err.getvalue())


def clean_error(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one message of a failed run; there is no stack trace."""
    assert result.returncode in (1, 2), f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, result.stderr
    messages = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, result.stderr
    return messages[0]
