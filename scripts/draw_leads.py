"""What a teacher brings, over its lead on the twin: `python scripts/draw_leads.py OUT.png`.

A point for each setting of docs/results whose learning rate suits the twin: how far the teacher is above the twin (mIoU
of both at their last steps), and what the default terms gain over the twin at equal steps; where these are unmeasured,
`cwd` at 9 instead of 27, a hollow point. Bars are 95 % intervals of three seeds or more, or the two seeds themselves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idd_seg.plotting.figures import figure, save
from idd_seg.studies.statistics import Spread

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TWIN = "twin"
DEFAULT = ("kd+cwd_27", "default_27")  # what the studies call it
BEFORE = "kd+cwd"  # with a weight of 9
SCRATCH, IMAGENET = "#d65f5f", "#4878cf"


@dataclass(frozen=True)
class Setting:
    """A folder of results, and what it is called in the picture."""

    folder: str
    name: str
    from_scratch: bool = False


SETTINGS = (
    Setting("camvid_short_all", "CamVid, a quarter of the labels, 125 steps"),
    Setting("camvid_labels_half", "CamVid, half of the labels, 250 steps"),
    Setting("camvid_labels_eighth", "CamVid, an eighth of the labels, 250 steps"),
    Setting("shapes_fair", "generated scenes, 500 steps", from_scratch=True),
    Setting("camvid_long_small", "CamVid, 3000 steps", from_scratch=True),
    Setting("camvid_quarter", "CamVid at 144 x 108, 2000 steps", from_scratch=True),
    Setting("camvid_labels_quarter_long_small", "CamVid, a quarter of the labels, 3000 steps", from_scratch=True),
    Setting("camvid_labels_quarter", "CamVid, a quarter of the labels, 500 steps"),
    Setting("facade_unlabelled", "facades, 500 steps"),
    Setting("camvid_long", "CamVid, 2000 steps"),
    Setting("camvid_labels_quarter_long", "CamVid, a quarter of the labels, 2000 steps"),
)


@dataclass(frozen=True)
class Point:
    """Points of mIoU: the teacher's lead on the twin, the gain of each seed, and the ends of its bar."""

    lead: float
    gains: Sequence[float]
    low: float
    high: float
    of_default: bool

    @property
    def gain(self) -> float:
        """The mean of the seeds."""
        return Spread.of(self.gains).mean


def point(folder: Path) -> Point:
    """Read a folder of results, of the seeds that both methods have."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("final-*.json"))]
    scores = {(run["method"], run["seed"]): 100 * run["miou"] for run in runs}
    distilled = next((run["method"] for run in runs if run["method"] in DEFAULT), BEFORE)
    seeds = [seed for method, seed in scores if method == distilled and (TWIN, seed) in scores]
    teacher = next(100 * run["teacher_miou"] for run in runs if run["method"] == distilled)
    gains = [scores[distilled, seed] - scores[TWIN, seed] for seed in seeds]
    half = Spread.of(gains).half_width() if len(gains) > 2 else None
    mean = Spread.of(gains).mean
    low, high = (min(gains), max(gains)) if half is None else (mean - half, mean + half)
    lead = teacher - Spread.of([scores[TWIN, seed] for seed in seeds]).mean
    return Point(lead, gains, low, high, distilled in DEFAULT)


def draw(points: Sequence[tuple[Setting, Point]], path: Path) -> None:
    """Draw them, numbered by lead; students from scratch and from ImageNet weights in two colours."""
    canvas = figure(10.5, 4.8)
    axes, list_of_names = canvas.subplots(1, 2, width_ratios=[1.7, 1])
    axes.axhline(0, color="#9aa0a6", linewidth=1)
    list_of_names.set_axis_off()
    for number, (setting, found) in enumerate(sorted(points, key=lambda each: -each[1].lead), 1):
        colour = SCRATCH if setting.from_scratch else IMAGENET
        bar = [[found.gain - found.low], [found.high - found.gain]]
        look = {"color": colour, "capsize": 3, "markersize": 7, "elinewidth": 1}
        face = colour if found.of_default else "white"
        axes.errorbar(found.lead, found.gain, yerr=bar, fmt="o", markerfacecolor=face, **look)
        axes.annotate(str(number), (found.lead, found.gain), (6, 4), textcoords="offset points", color=colour)
        seeds = f" ({len(found.gains)} seeds)" if len(found.gains) != 3 else ""
        place = {"transform": list_of_names.transAxes, "fontsize": 9, "color": colour, "va": "top"}
        list_of_names.text(0, 0.98 - 0.075 * (number - 1), f"{number}  {setting.name}{seeds}", **place)
    axes.plot([], [], "o", color=SCRATCH, label="student from scratch")
    axes.plot([], [], "o", color=IMAGENET, label="student from ImageNet weights")
    axes.plot([], [], "o", color="#5f6368", markerfacecolor="white", label="cwd 9; the default's 27 is unmeasured")
    axes.legend(loc="lower right", frameon=False)
    axes.set_xlabel("teacher above the twin, points of mIoU")
    axes.set_ylabel("gain of the default terms over the twin")
    axes.spines[["top", "right"]].set_visible(False)
    save(canvas, path)


def main(arguments: Sequence[str]) -> int:
    """Draw, and print the numbers."""
    if len(arguments) != 1:
        print("usage: draw_leads.py OUT.png", file=sys.stderr)
        return 2
    points = [(setting, point(RESULTS / setting.folder)) for setting in SETTINGS]
    for setting, found in sorted(points, key=lambda each: -each[1].lead):
        gain = f"{found.gain:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        of = "the default" if found.of_default else "cwd 9"
        print(f"{setting.folder}: {of}, lead {found.lead:.2f}, gain {gain}, {len(found.gains)} seeds")
    draw(points, Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
