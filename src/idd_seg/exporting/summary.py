"""What was exported, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idd_seg.plotting.tables import percent


def table_of(report: Mapping[str, Any]) -> None:
    """Print what was written: size, difference from PyTorch, speed and mIoU where they were measured."""
    from rich.console import Console
    from rich.table import Table

    found, speeds = report["files"], report.get("speed", {"images_per_second": {}, "ratio": {}})
    table = Table(title=f"{report['parameters'] / 1e6:.2f} million parameters", title_justify="left")
    for name in ("file", "MB", "largest difference", "same class, %", "images/s", "x PyTorch"):
        table.add_column(name, justify="left" if name == "file" else "right", overflow="fold")
    for name in dict.fromkeys([*(n for n in speeds["ratio"] if n.startswith("pytorch")), *found]):
        entry = found.get(name, {})
        compared = entry.get("parity", entry)
        table.add_row(
            name,
            f"{entry['bytes'] / 1e6:.2f}" if entry else "",
            f"{compared['max_abs_difference']:.1e}" if "max_abs_difference" in compared else "",
            f"{100 * compared['same_class']:.3f}" if compared else "",
            f"{speeds['images_per_second'].get(name, '')}",
            f"{speeds['ratio'].get(name, '')}",
        )
    Console().print(table)
    if speeds["ratio"]:
        print(f"speed: one picture of {speeds['size']}, {speeds['threads']} threads, median of {speeds['repeats']}")
    if "int8" in report:
        before = percent(report["int8"]["before"]["miou"])
        for name, entry in report["int8"]["files"].items():
            kept = f"; in float: {', '.join(entry['in_float'])}" if entry["in_float"] else ""
            after = percent(entry["after"]["miou"])
            print(f"{name}: mIoU {before} % before, {after} % after, on the {report['int8']['split']} split{kept}")
