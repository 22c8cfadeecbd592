"""A task without a network, to sweep over: `python -m tests.sweeps.app` takes the place of an entry point."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from idd_seg.config import command_line, groups


def main(cfg: DictConfig) -> Any:
    """Return -(x - 3)^2, unless `mode` says how the job shall end; count its starts in a file."""
    folder = Path(cfg.run_dir)
    with (folder / "starts").open("a") as file:
        file.write(f"{cfg.resume}\n")
    if cfg.mode == "no_number":
        return float("nan")
    if cfg.mode == "fail":
        raise ValueError("this job fails on purpose")
    if cfg.mode == "kill_once" and not Path(cfg.killed).exists() and cfg.number == 2:
        Path(cfg.killed).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.mode == "devices":
        seen = [os.environ.get(name, "-") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
        began = time.time()
        time.sleep(0.5)
        (folder / "devices").write_text(" ".join([*seen, str(os.getpid()), str(began), str(time.time())]))
    if cfg.mode == "preempted" and cfg.resume is None:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(30)
    return -((cfg.x - 3) ** 2)


def configurations() -> Path:
    """Return a folder with the task's configuration and the program's launchers and sweepers, in the current one."""
    folder = Path("conf").absolute()
    if not folder.exists():
        shutil.copytree(groups.config_dir() / "hydra", folder / "hydra")
        shutil.copy(Path(__file__).with_suffix(".yaml"), folder)
    return folder


if __name__ == "__main__":
    found = configurations()
    groups.config_dir = command_line.config_dir = lambda: found
    command_line.run(main, "app")
