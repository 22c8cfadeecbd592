"""`metrics.csv` of a run: one row a step, whole after every stop."""

from __future__ import annotations

import csv
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

NAME = "metrics.csv"
FIRST = "step"


class MetricsFile(Logger):
    """Writes what is logged to `metrics.csv` of the run folder: `step`, then the metrics by name.

    Rows are appended; a metric that comes up later makes the file be written anew, beside the old one, with a column
    more. A run that goes on from a checkpoint drops the rows that the stopped one wrote behind it, so that no step is
    there twice.

    Args:
        every: rows between two writes; a checkpoint writes them too.
    """

    def __init__(self, run_dir: str, every: int = 20) -> None:
        super().__init__()
        self.path = Path(run_dir) / NAME
        self.every = every
        self.names: list[str] = []
        self.rows: list[dict[str, str]] = []
        self.started = self.warned = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Do nothing: `config.yaml` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take a row; values of one step stand in one row."""
        row = _row(step, metrics)
        if self.rows and self.rows[-1][FIRST] == row[FIRST]:
            self.rows[-1].update(row)
            return
        if len(self.rows) >= self.every:
            self.save()
        self.rows.append(row)

    @rank_zero_only
    def go_on(self, step: int, last: Mapping[str, float] | None = None) -> None:
        """Keep the rows of the first `step` optimizer steps alone, before a run goes on from there.

        Args:
            last: of the last of these steps, which is added if it is not there.
        """
        rows = _read(self.path) if self.path.is_file() else []
        kept = [row for row in rows if row.get(FIRST, "").isdigit() and int(row[FIRST]) < step]
        if last and not any(int(row[FIRST]) == step - 1 for row in kept):
            kept.append(_row(step - 1, last))
        if not kept and not self.path.is_file():
            return
        self.names = list(dict.fromkeys(name for row in kept for name in row if name != FIRST))
        self._write_all(kept)
        self.started = True

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that wait; where that can't be done they wait on, with a warning once."""
        if not self.rows:
            return
        try:
            self._write()
        except OSError as error:
            if not self.warned:
                self.warned = True
                warnings.warn(
                    f"'{self.path}' can't be written ({error.strerror or error}); the run goes on, and what is not "
                    "written yet is tried again",
                    stacklevel=2,
                )
            return
        self.started, self.rows, self.warned = True, [], False

    def _write(self) -> None:
        new = [n for n in dict.fromkeys(name for row in self.rows for name in row) if n not in (FIRST, *self.names)]
        if new or not self.started:
            before = _read(self.path) if self.started else []
            self.names = sorted([*self.names, *new])
            self._write_all([*before, *self.rows])
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, [FIRST, *self.names], restval="").writerows(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.save()

    def _write_all(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{NAME}.tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [FIRST, *self.names], restval="")
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(self.path)


def _row(step: int | None, metrics: Mapping[str, float]) -> dict[str, str]:
    return {FIRST: str(step), **{name: repr(float(value)) for name, value in metrics.items() if name != "epoch"}}


def _read(path: Path) -> list[dict[str, str]]:
    """Return the rows; a last one that was cut off is left out."""
    return list(_whole_rows(path))


def _whole_rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if None not in row and None not in row.values():
                yield {name: value for name, value in row.items() if name == FIRST or value}
