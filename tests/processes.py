"""Processes of a test: started, found again, and gone when it ends, whatever they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest

from tests.commands import call

MARK = "IDD_SEG_TESTED_BY"  # in the environment of all that a test starts, grandchildren included
ROOT = Path(__file__).parents[1]
# What tells a process that it is one of several.
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")


class Family:
    """All processes that have this family's mark in their environment.

    Args:
        folder: where they run; teachers are kept in `cache` there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        plain = {k: v for k, v in os.environ.items() if k not in LAUNCHERS and not k.startswith("SLURM_")}
        plain.pop("HYDRA_FULL_ERROR", None)
        path = os.pathsep.join([str(ROOT), *filter(None, [plain.get("PYTHONPATH")])])
        own = {MARK: self.mark, "PYTHONPATH": path, "IDD_SEG_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        self.environment = {**plain, **own}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `python <arguments>`; `stdout` and `stderr` are pipes."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, module: ModuleType, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an entry point in this process, which spares its start; the output is that of its children too."""
        with pytest.MonkeyPatch.context() as patch, _output(self.folder) as (out, error):
            for name in (*LAUNCHERS, *(k for k in os.environ if k.startswith("SLURM_"))):
                patch.delenv(name, raising=False)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            code = call(module, *arguments, folder=self.folder, patch=patch)
        return subprocess.CompletedProcess(arguments, code, out.read_text(), error.read_text())

    def alive(self) -> dict[int, str]:
        """Return the number and the command of each process of the family, zombies and this one left out."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has just ended, or is another user's
                continue
        return found

    def kill(self) -> None:
        """End all, also those that stand still."""
        while alive := self.alive():
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for process in self.started:
                process.poll()
            time.sleep(0.05)
        for process in self.started:
            process.communicate()


def wait_for(what: Callable[[], object], seconds: float) -> bool:
    """Tell whether it comes true in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if what():
            return True
        time.sleep(0.05)
    return bool(what())


@contextmanager
def _output(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Lead what this process and its children write to two files."""
    paths = folder / f"out-{uuid.uuid4().hex}", folder / f"err-{uuid.uuid4().hex}"
    before = os.dup(1), os.dup(2)
    with paths[0].open("a") as out, paths[1].open("a") as error:
        os.dup2(out.fileno(), 1)
        os.dup2(error.fileno(), 2)
        try:
            with redirect_stdout(out), redirect_stderr(error):
                yield paths
        finally:
            for old, number in zip(before, (1, 2), strict=True):
                os.dup2(old, number)
                os.close(old)


@contextmanager
def family(folder: Path) -> Iterator[Family]:
    """Give a family, and end what is left of it."""
    found = Family(folder)
    try:
        yield found
    finally:
        found.kill()
