"""`python -m idd_seg.study study=NAME`: methods side by side, weights found by the same search for each, over seeds."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg.config import command_line
from idd_seg.config.ranges import check_whole


def main(cfg: DictConfig) -> None:
    """Find the weights, train every method with every seed, and write table and JSON of each run.

    What is finished is left; a study goes on where it was stopped.
    """
    from idd_seg.errors import ConfigError
    from idd_seg.studies.course import Course
    from idd_seg.studies.jobs import Runner
    from idd_seg.studies.plan import read_plan
    from idd_seg.sweeps.devices import visible_devices

    if cfg.only is not None and not OmegaConf.is_list(cfg.only):
        raise ConfigError(f'only must be a list of methods, e.g. only=["twin","kd"], got "{cfg.only}"')
    plan = read_plan(OmegaConf.to_container(cfg.study, resolve=True), cfg.only)  # type: ignore[arg-type]
    check_whole(cfg, "jobs", 1)
    check_whole(cfg, "probe_steps", 0)
    folder, kept = Path(cfg.folder), Path(cfg.results)
    kept.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _stop)
    course = Course(plan, folder, kept, Runner(cfg.jobs, visible_devices()))
    course.search()
    course.train()
    print(course.table)
    folders = course.folders  # fewer than the results, where these were made on another machine
    if cfg.probe_steps and folders:
        from idd_seg.studies.portraits import portray

        print(portray(folders, kept, cfg.probe_steps, [name for name in course.shown if name in folders]))
    print(f"results: {kept}")


def _stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    command_line.run(main, "study")
