"""A study as a picture: each method's seeds and mean, between the twin and the teacher."""

from __future__ import annotations

from pathlib import Path

from idd_seg.plotting.figures import literal
from idd_seg.studies.statistics import Spread
from idd_seg.studies.tables import Results

SHARE = 0.79  # of the gap: what the headline of the IDD paper comes to (docs/method.md)


def draw(results: Results, twin: str, teacher: float | None, path: Path) -> None:
    """Draw a row a method, the best on top; the twin's mean, the teacher, and the share of the gap as lines.

    Args:
        teacher: its mIoU, 0 to 1.
    """
    from matplotlib.figure import Figure

    means = {name: Spread.of([100 * r.miou for r in runs.values()]) for name, runs in results.items()}
    order = sorted(means, key=lambda name: means[name].mean)
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(order)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(order):
        colour = "#9aa0a6" if name == twin else "#4878cf"
        scores = [100 * result.miou for result in results[name].values()]
        axes.scatter(scores, [row] * len(scores), s=14, color=colour, alpha=0.6, linewidths=0, zorder=3)
        half = means[name].half_width()
        axes.errorbar(
            means[name].mean, row, xerr=half, fmt="|", color=colour, markersize=13, markeredgewidth=2, capsize=3
        )
    base = means[twin].mean
    axes.axvline(base, color="#9aa0a6", linewidth=1, zorder=1)
    if teacher is not None and 100 * teacher > base:
        top = 100 * teacher
        share = base + SHARE * (top - base)
        axes.axvline(top, color="#d65f5f", linewidth=1, zorder=1)
        axes.axvline(share, color="#d65f5f", linewidth=1, linestyle=":", zorder=1)
        # Away from each other, as the two may lie near.
        for x, text, side in ((top, " teacher", "left"), (share, f"{SHARE:.0%} of the gap ", "right")):
            axes.annotate(
                text,
                (x, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha=side,
                va="bottom",
                fontsize=8,
                color="#d65f5f",
            )
    axes.set_yticks(range(len(order)), [literal(name) for name in order])
    several = any(len(runs) > 1 for runs in results.values())
    axes.set_xlabel("mIoU on val, %" + (": seeds, mean, and its 95 % interval" if several else ""))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
