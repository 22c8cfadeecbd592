"""Speed beside accuracy: the picture of `benchmark model`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from idd_seg.benchmarks.networks import Found
from idd_seg.plotting.figures import figure, literal

COLOURS = {"eager": "#4c72b0", "compiled": "#dd8452", "onnx": "#55a868"}
PLAIN = "#8c8c8c"


def draw(title: str, found: Sequence[Found], budget: float | None = None) -> Any:
    """Draw bars of parameters, operations and time, and mIoU over speed for networks that have an mIoU.

    Args:
        budget: seconds a batch that a frame rate leaves, as a line; None draws none.
    """
    judged = [each for each in found if each.miou is not None and each.times]
    panels = 2 + any(each.times for each in found) + bool(judged)
    fig = figure(4.2 * panels, 1.6 + 0.55 * max(3, len(found)))
    axes = list(fig.subplots(1, panels, squeeze=False)[0])
    names = [literal(each.name) for each in found]
    _bars(axes[0], names, [each.parameters / 1e6 for each in found], "parameters, millions")
    _bars(axes[1], names, [each.flops / 1e9 for each in found], "GFLOPs a batch")
    if any(each.times for each in found):
        _times(axes[2], names, found)
    if judged:
        _accuracy(axes[-1], judged)
    for axis in axes[2:] if budget is not None else []:
        axis.axvline(1e3 * (budget or 0), color="#c44e52", linestyle="--", linewidth=1.2, zorder=3)
    fig.suptitle(literal(title), fontsize=11)
    fig.tight_layout()
    return fig


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], label: str) -> None:
    bars = axis.barh(range(len(names)), values, color=PLAIN, height=0.6)
    axis.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    _finish(axis, names, label, max(values))


def _times(axis: Any, names: Sequence[str], found: Sequence[Found]) -> None:
    ways = list(dict.fromkeys(way for each in found for way in each.times))
    height = 0.8 / len(ways)
    for j, way in enumerate(ways):
        rows = [(i, each.times[way]) for i, each in enumerate(found) if way in each.times]
        middle = [1e3 * t.median for _, t in rows]
        spread = [[1e3 * (t.median - t.low) for _, t in rows], [1e3 * (t.high - t.median) for _, t in rows]]
        places = [i + (j - (len(ways) - 1) / 2) * height for i, _ in rows]
        bars = axis.barh(places, middle, height, xerr=spread, color=COLOURS[way], label=way, ecolor="0.3")
        axis.bar_label(bars, [f"{value:.3g}" for value in middle], padding=3, fontsize=8)
    axis.legend(fontsize=8, frameon=False, loc="best")
    _finish(axis, names, "ms a batch (median, quartiles)", max(1e3 * t.high for e in found for t in e.times.values()))


def _accuracy(axis: Any, judged: Sequence[Found]) -> None:
    """Draw a point a network, at its fastest way; its area is that of its parameters."""
    largest = max(each.parameters for each in judged)
    for each in judged:
        way, t = min(each.times.items(), key=lambda item: item[1].median)
        speed, miou = 1e3 * t.median, 100 * (each.miou or 0.0)
        axis.scatter(speed, miou, s=30 + 400 * each.parameters / largest, color=COLOURS[way], alpha=0.7)
        axis.annotate(literal(f"{each.name} ({way})"), (speed, miou), xytext=(0, 14), **_LABEL)
    axis.set_xscale("log")
    axis.margins(0.3)
    axis.set_xlabel("ms a batch, fastest way", fontsize=9)
    axis.set_ylabel("mIoU on held-out images, %", fontsize=9)
    axis.set_title("area: parameters", fontsize=8, color="0.4")
    axis.grid(alpha=0.3)


_LABEL: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}


def _finish(axis: Any, names: Sequence[str], label: str, largest: float) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.25 * largest or 1)
    axis.set_xlabel(label, fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
