"""`python -m idd_seg.study study=NAME`: methods side by side, weights found by the same search for each, over seeds."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg import cli


def main(cfg: DictConfig) -> None:
    """Find the weights, train every method with every seed, and write table and JSON of each run.

    What is finished is left; a study goes on where it was stopped.
    """
    from idd_seg.errors import ConfigError
    from idd_seg.studies.course import Course
    from idd_seg.studies.jobs import Runner
    from idd_seg.studies.plan import read_plan
    from idd_seg.sweeps.devices import visible_devices

    plan = read_plan(OmegaConf.to_container(cfg.study, resolve=True), cfg.only)  # type: ignore[arg-type]
    if not isinstance(cfg.jobs, int) or isinstance(cfg.jobs, bool) or cfg.jobs < 1:
        raise ConfigError(f"jobs must be a whole number >= 1, got '{cfg.jobs}'")
    folder, kept = Path(cfg.folder), Path(cfg.results)
    kept.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    course = Course(plan, folder, kept, Runner(cfg.jobs, visible_devices()))
    course.search()
    course.train()
    print(course.table)
    print(f"results: {kept}")


def _stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    cli.run(main, "study")
