"""A study class by class: which classes each method gains and loses, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idd_seg.plotting.figures import literal, shorten
from idd_seg.studies.jobs import Result
from idd_seg.studies.tables import Results

MOST = 24  # classes that are shown: those that change most
NAME = 18  # letters of a class
FULL = 10.0  # points of IoU that have the full colour

Floats = NDArray[np.float64]


def draw_classes(results: Results, twin: str, path: Path) -> None:
    """Draw a row a class: the twin's IoU, and what each method has more or less, in points; means over the seeds.

    A method is compared on the seeds that it shares with the twin. Nothing is drawn without a method beside the twin.
    """
    from matplotlib.figure import Figure

    changes = {
        name: found for name, runs in results.items() if name != twin and (found := _change(runs, results[twin]))
    }
    if not changes:
        return
    every = list(dict.fromkeys(key for change in changes.values() for key in change))
    largest = {key: max(abs(change.get(key, 0.0)) for change in changes.values()) for key in every}
    kept = set(sorted(every, key=lambda key: -largest[key])[:MOST])
    classes = [key for key in every if key in kept]
    values = np.array([[change.get(key, math.nan) for change in changes.values()] for key in classes])
    base = _means(results[twin])
    figure = Figure(figsize=(2.6 + 0.8 * len(changes), 1.5 + 0.27 * len(classes)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="RdBu", vmin=-FULL, vmax=FULL, aspect="auto")
    for row, column in np.argwhere(~np.isnan(values)):
        value = round(values[row, column], 1) + 0.0  # no minus before a nought
        colour = "white" if abs(value) > 0.7 * FULL else "black"
        axes.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(classes)), [f"{literal(shorten(key, NAME))}  {100 * base[key]:.1f}" for key in classes])
    axes.set_xticks(range(len(changes)), [literal(name) for name in changes], rotation=30, ha="left")
    axes.tick_params(length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False)
    some = f"; the {MOST} of {len(every)} classes that change most" if len(every) > MOST else ""
    axes.set_xlabel(f"IoU of '{literal(twin)}' in %, and points more or less{some}", fontsize=8)
    axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def _change(runs: Mapping[int, Result], twins: Mapping[int, Result]) -> dict[str, float]:
    """Return by class the mean difference to the twin in points of IoU, of classes that occur in both."""
    seeds = [seed for seed in runs if seed in twins]
    if not seeds:
        return {}
    ours, theirs = (_means({seed: each[seed] for seed in seeds}) for each in (runs, twins))
    return {key: 100 * (ours[key] - theirs[key]) for key in ours if key in theirs}


def _means(runs: Mapping[int, Result]) -> dict[str, float]:
    """Return by class the mean IoU of the runs that have one."""
    values: dict[str, list[float]] = {}
    for result in runs.values():
        for key, value in result.iou.items():
            if value is not None:
                values.setdefault(key, []).append(value)
    return {key: float(np.mean(each)) for key, each in values.items()}
