"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from idd_seg.metrics.confusion import Scores


def percent(value: float) -> str:
    """Format a share as percent; a dash where there is none."""
    return "-" if value != value else f"{100 * value:.2f}"


def class_table(title: str, class_names: Sequence[str], columns: Mapping[str, Scores]) -> None:
    """Print mIoU, pixel accuracy and the IoU of each class, in percent, a column a network."""
    table = Table(title=title, title_justify="left")
    table.add_column("IoU, %")
    for name in columns:
        table.add_column(name, justify="right")
    for i, class_name in enumerate(class_names):
        table.add_row(escape(class_name), *(percent(s.iou[i]) for s in columns.values()))
    table.add_section()
    table.add_row("mIoU", *(percent(s.miou) for s in columns.values()), style="bold")
    table.add_row("pixel accuracy", *(percent(s.accuracy) for s in columns.values()))
    Console().print(table)
