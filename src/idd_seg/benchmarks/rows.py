"""What a benchmark found: rows for a table and for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: is measured.
        ours, theirs: figures with their units; `theirs` is what it is compared with.
        ratio: of the two, as `better` says.
        better: `more` where a high ratio is good, else `less`.
        bar: what the ratio is to reach (or to stay under); None where nothing is asked.
    """

    what: str
    ours: str
    theirs: str
    ratio: float
    better: str = "more"
    bar: float | None = None

    @property
    def reached(self) -> bool | None:
        """Tell whether the bar is reached; None without one."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if self.better == "more" else self.ratio <= self.bar

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "reached": self.reached}


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left")
    for name in ("", "ours", "against", "ratio", "bar", ""):
        table.add_column(name, justify="right" if name in ("ratio", "bar") else "left")
    for row in rows:
        bar = "-" if row.bar is None else f"{'>=' if row.better == 'more' else '<='} {row.bar:g}"
        mark = {True: "[green]reached[/green]", False: "[red]missed[/red]", None: ""}[row.reached]
        table.add_row(row.what, row.ours, row.theirs, f"{row.ratio:.2f}", bar, mark)
    Console(width=150).print(table)
