"""Where the time of a step goes, as stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idd_seg.benchmarks.bounds import bound
from idd_seg.benchmarks.stopwatch import PARTS

COLOURS = {
    "data": "#9aa0a6",
    "teacher": "#4878cf",
    "student": "#6acc65",
    "terms": "#d65f5f",
    "backward": "#b8dfb3",
    "optimizer": "#c4ad66",
    "rest": "#333333",
}
LABELS = {"student": "student, forward", "backward": "student, backward", "rest": "trainer, logging"}


def draw(content: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the bare step and ours for each size; bars are seconds relative to the bare step.

    Args:
        content: what `step.run` has measured.
    """
    from matplotlib.figure import Figure

    bars = [bar for found in content for bar in _bars(found)]
    figure = Figure(figsize=(9, 0.8 + 0.55 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for row, (_, parts, whole, least) in enumerate(bars):
        left = 0.0
        for part in PARTS:
            width = parts.get(part, 0.0) / whole
            axes.barh(row, width, left=left, color=COLOURS[part], label=LABELS.get(part, part) if row == 0 else None)
            left += width
        near = max(left, least / whole) if least / whole < left + 0.07 else left  # beside the dotted line, not on it
        axes.text(near + 0.01, row, f"{left:.2f}", va="center", fontsize=9)
        axes.plot([least / whole] * 2, [row - 0.4, row + 0.4], color="black", linestyle=":", linewidth=1.5)
    axes.set_yticks(range(len(bars)), [label for label, *_ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("time, relative to the bare step of the same size; dotted: the arithmetic bound")
    axes.set_xlim(0, 1.1 * max(sum(parts.values()) / whole for _, parts, whole, _ in bars))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=7, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def _bars(found: dict[str, Any]) -> list[tuple[str, dict[str, float], float, float]]:
    """Return label, parts, seconds of the bare step and the bound of each bar of a size.

    Parts are measured on some steps of their own; they are shares of the median step.
    """
    size = f"{found['batch']} x {found['size'][0]} x {found['size'][1]}"
    bars = []
    for i, (way, measured) in enumerate(found["ways"].values()):
        whole = measured.bare.median
        if not measured.parts:
            continue
        if i == 0:
            bars.append((f"{size}: bare", _scaled(measured.bare_parts, whole), whole, bound(found, "32-true")))
        ours = _scaled(measured.parts, measured.ours.median)
        bars.append((f"{size}: {way.name}", ours, whole, bound(found, way.precision)))
    return bars


def _scaled(parts: dict[str, float], whole: float) -> dict[str, float]:
    factor = whole / sum(parts.values())
    return {name: factor * seconds for name, seconds in parts.items()}
