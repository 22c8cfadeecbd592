"""A study as curves: mIoU over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idd_seg.plotting.figures import literal
from idd_seg.studies.jobs import Result
from idd_seg.studies.plan import WALL
from idd_seg.studies.tables import Results

Floats = NDArray[np.float64]
BEST = 6  # methods beside the twin that are told apart by colours


def draw_curves(results: Results, twin: str, clock: str, path: Path) -> None:
    """Draw the mean course of the twin and of the best methods, with the range of the seeds; none without times.

    Args:
        clock: `wall` or `cpu`, the axis.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    courses = {name: found for name, runs in results.items() if (found := _mean(runs, clock)) is not None}
    if not courses:
        return
    order = sorted(courses, key=lambda name: -courses[name][1][-1])
    shown = [name for name in order if name != twin][:BEST] + ([twin] if twin in courses else [])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(shown):
        times, means, low, high = courses[name]
        colour = "#5f6368" if name == twin else colormaps["tab10"](place)
        axes.plot(times, means, marker="o", markersize=3, color=colour, label=literal(name))
        axes.fill_between(times, low, high, color=colour, alpha=0.12, linewidth=0)
    if twin in courses:
        axes.axhline(courses[twin][1][-1], color="#9aa0a6", linewidth=1, linestyle=":", zorder=1)
    axes.set_xlabel("seconds" if clock == WALL else "seconds of the processor")
    axes.set_ylabel("mIoU on val, %")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _mean(runs: Mapping[int, Result], clock: str) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Return mean times, and mean, least and highest mIoU in percent, of the validations that all seeds have."""
    key = "seconds" if clock == WALL else "cpu_seconds"
    courses = [result.course for result in runs.values() if result.course]
    if not courses:
        return None
    steps = sorted(set.intersection(*({int(moment["step"]) for moment in course} for course in courses)))
    if not steps:
        return None
    at = [{int(moment["step"]): moment for moment in course} for course in courses]
    times = np.array([[moments[step][key] for step in steps] for moments in at])
    scores = 100 * np.array([[moments[step]["miou"] for step in steps] for moments in at])
    return times.mean(0), scores.mean(0), scores.min(0), scores.max(0)
