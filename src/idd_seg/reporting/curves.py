"""The columns of metrics.csv, thinned for a page."""

from __future__ import annotations

import csv
import io
import math
import statistics
from pathlib import Path

from idd_seg.reporting.files import UnreadableError, read_text, text_of

POINTS = 200
COLUMNS = 300
Curve = tuple[list[float], list[float]]


def read_curves(path: Path) -> tuple[dict[str, Curve], list[str]]:
    """Return steps and values of each metric column, all points, and notes on what could not be read."""
    try:
        text = read_text(path)
    except UnreadableError as error:
        return {}, [str(error)]
    # A number that was cut would be taken for a smaller one, so a last line without its end does not count.
    whole, _, rest = text.replace("\0", "").rpartition("\n")
    rows = csv.reader(io.StringIO(whole))
    curves: dict[str, Curve] = {}
    broken = int(bool(rest))
    try:
        header = [text_of(name, 100) for name in next(rows, [])][:COLUMNS]
        if "step" not in header:
            return {}, [f"{path.name} has no column 'step'" if header else f"{path.name} is empty"]
        at = header.index("step")
        for row in rows:
            step = _number(row[at]) if len(row) > at else None
            broken += len(row) < len(header) or step is None
            if step is None:
                continue
            for name, cell in zip(header, row, strict=False):
                if name not in ("step", "epoch") and (value := _number(cell)) is not None:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(value)
    except csv.Error as error:
        return curves, [f"{path.name} is broken: {error}"]
    return curves, [f"{path.name}: {broken} incomplete line{'s'[: broken > 1]}"] if broken else []


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """Keep at most `points` points, evenly chosen, the first and the last among them, rounded to 5 digits."""
    steps, values = curve
    last = len(steps) - 1
    kept = range(last + 1) if last < points else [round(i * last / (points - 1)) for i in range(points)]
    return [short(steps[i], 12) for i in kept], [short(values[i]) for i in kept]


def short(value: float, digits: int = 5) -> float:
    """Round to significant digits; whole numbers become `int`, which JSON writes shorter."""
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def typical(curve: Curve | None) -> float | None:
    """Return the median of a column's values, which a slow first step does not move."""
    return statistics.median(curve[1]) if curve and curve[1] else None
