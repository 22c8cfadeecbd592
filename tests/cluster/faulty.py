"""Jobs of a sweep of which six end in six ways: `python -m tests.cluster.faulty -m x=0,1,...`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from idd_seg.config import command_line, groups
from idd_seg.errors import DataError
from tests.sweeps import app

# Numbers of jobs, and what becomes of them.
CANCELLED = (3, 17)  # by somebody else, while they run
MISTAKE, KILLED, DEAF, SLOW = 7, 12, 21, 28
FAULTS = (*CANCELLED, MISTAKE, KILLED, DEAF, SLOW)


def main(cfg: DictConfig) -> Any:
    """Return the number, unless it is one of the faults."""
    (Path(cfg.run_dir) / "started").touch()
    if cfg.x == MISTAKE:
        raise DataError("'masks/0001.png' is damaged")
    if cfg.x == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.x == DEAF:  # a job that hears no warning
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    if cfg.x in (*CANCELLED, DEAF, SLOW):
        time.sleep(600)
    return float(cfg.x)


if __name__ == "__main__":
    found = app.configurations()
    groups.config_dir = command_line.config_dir = lambda: found
    command_line.run(main, "app")
