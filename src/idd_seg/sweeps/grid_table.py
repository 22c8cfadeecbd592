"""The end of a grid sweep: its runs as a table, the best first, and the command that trains the best one again."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from idd_seg.config import command_line

FILE = "sweep.csv"
SHOWN = 30  # rows that are printed


class Job(NamedTuple):
    """A job of a sweep.

    Attributes:
        options: as they were given, those of all jobs too.
        last, best: mIoU, 0 to 1; None of a job without a result.
    """

    folder: Path
    options: Sequence[str]
    last: float | None
    best: float | None


class GridTable(Callback):
    """Prints the table at the end of a sweep of Hydra's own sweeper, and writes `sweep.csv`; a search has its own."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Be there also where jobs fail."""
        command_line.after_failed_jobs[:] = [partial(end, config)]

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the jobs' results."""
        end(config)


def end(config: DictConfig) -> None:
    """Read the jobs' folders, whichever launcher has run them, and show what came of them."""
    folder = Path(str(config.hydra.sweep.dir))
    if not str(config.hydra.sweeper["_target_"]).endswith("BasicSweeper") or not folder.is_dir():
        return
    if len(jobs := read_jobs(folder)) > 1:
        show(folder, jobs)


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs of a sweep folder, the best last mIoU first and those without a result at the end."""
    found = [_read(path) for path in sorted(folder.iterdir()) if (path / ".hydra" / "overrides.yaml").is_file()]
    return sorted(found, key=lambda job: -math.inf if job.last is None else job.last, reverse=True)


def _read(folder: Path) -> Job:
    given = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    options = [str(option) for option in given]
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        last, best = (float(metrics[key]["miou"]) for key in ("last", "best"))
    except (OSError, ValueError, KeyError, TypeError):
        return Job(folder, options, None, None)
    return Job(folder, options, last, best)


def show(folder: Path, jobs: Sequence[Job]) -> None:
    """Print the table, write it, and name the best run."""
    from rich.console import Console
    from rich.table import Table

    common = set.intersection(*(set(job.options) for job in jobs))
    names = list(dict.fromkeys(_name(option) for job in jobs for option in job.options if option not in common))
    rows = [[*_cells(job, names), _percent(job.last), _percent(job.best)] for job in jobs]
    table = Table(title=f"{folder}: {len(jobs)} jobs")
    for head in [*names, "mIoU, %", "best, %"]:
        table.add_column(head, justify="left" if head in names else "right", overflow="fold")
    for row in rows[:SHOWN]:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                [*names, "mIoU", "best mIoU", "folder"],
                *([*row, job.folder.name] for row, job in zip(rows, jobs, strict=True)),
            ]
        )
    left = len(jobs) - SHOWN
    print(f"all of them: {folder / FILE}" + (f"; {left} more than are shown" if left > 0 else ""))
    if jobs[0].last is not None:
        words = " ".join(shlex.quote(option) for option in jobs[0].options if _name(option) != "resume")
        print(f"the best: {jobs[0].folder}; the same again: python -m idd_seg.train {words}".rstrip())


def _name(option: str) -> str:
    return option.partition("=")[0]


def _cells(job: Job, names: Sequence[str]) -> list[str]:
    given = dict(option.partition("=")[::2] for option in job.options)
    return [given.get(name, "") for name in names]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
