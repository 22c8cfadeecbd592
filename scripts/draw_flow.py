"""Draw docs/flow.png, how a student is distilled: `python scripts/draw_flow.py [OUT.png]`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from idd_seg.config.groups import options_of

OUT = Path(__file__).parents[1] / "docs" / "flow.png"
INK = "#1f2933"
SOFT = "#52606d"
GREY = ("#f1f3f5", "#7b8794")
BLUE = ("#e3effb", "#2b6cb0")
GREEN = ("#e4f5ea", "#2f855a")
ORANGE = ("#fdf0e1", "#c05621")
# The terms of a run that names none; the others are found in conf/loss.
USUAL = {
    "ce": "the labels (student alone)",
    "kd": "the class of each pixel",
    "cwd": "where each class's channel looks",
}


def box(ax: Axes, at: tuple[float, float], size: tuple[float, float], colours: tuple[str, str], *texts: str) -> None:
    """Draw a rounded box with a bold first line and small further ones."""
    (x, y), (w, h) = at, size
    shape = FancyBboxPatch(at, w, h, boxstyle="round,pad=0,rounding_size=0.12", fc=colours[0], ec=colours[1], lw=1.6)
    ax.add_patch(shape)
    title, *rest = texts
    top = y + h / 2 + 0.135 * len(rest)
    ax.text(x + w / 2, top, title, ha="center", va="center", fontsize=11.5, fontweight="bold", color=INK)
    for i, line in enumerate(rest):
        ax.text(x + w / 2, top - 0.29 * (i + 1), line, ha="center", va="center", fontsize=9, color=SOFT)


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, bend: float = 0, style: str = "-"
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            lw=1.5,
            color=colour,
            linestyle=style,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=1,
        )
    )


def note(ax: Axes, x: float, y: float, text: str, colour: str = SOFT) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=colour)


def term(ax: Axes, y: float, name: str, what: str) -> None:
    """Draw one line of the terms' box: its name, and what it compares."""
    ax.text(7.0, y, name, ha="left", va="center", fontsize=9.2, family="monospace", fontweight="bold", color=ORANGE[1])
    ax.text(8.13, y, what, ha="left", va="center", fontsize=9, color=INK)


def terms_box(ax: Axes) -> None:
    shape = FancyBboxPatch(
        (6.7, 0.6), 4.15, 4.2, boxstyle="round,pad=0,rounding_size=0.12", fc=ORANGE[0], ec=ORANGE[1], lw=1.6
    )
    ax.add_patch(shape)
    ax.text(8.77, 4.48, "terms", ha="center", va="center", fontsize=11.5, fontweight="bold", color=INK)
    for i, (name, what) in enumerate(USUAL.items()):
        term(ax, 4.0 - 0.42 * i, name, what)
    ax.text(8.77, 2.62, "and, by option,", ha="center", va="center", fontsize=9, color=SOFT, style="italic")
    others = sorted((name for name in options_of("loss") if name not in USUAL), key=lambda name: (-len(name), name))
    lines = textwrap.wrap(" ".join(others), 30, break_long_words=False, break_on_hyphens=False)
    for i, line in enumerate(lines):
        y = 2.22 - min(0.33, 1.4 / len(lines)) * i
        said = line.replace(" ", "  ")
        ax.text(8.77, y, said, ha="center", va="center", fontsize=9.2, family="monospace", color=ORANGE[1])


def draw(out: Path) -> Path:
    fig = plt.figure(figsize=(11.2, 4.1))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 14)
    ax.set_ylim(0.1, 5.2)
    ax.axis("off")

    box(ax, (0.25, 2.0), (1.9, 1.4), GREY, "data", "image, label,", "place of the crop")
    box(ax, (2.95, 3.45), (2.35, 1.35), BLUE, "teacher", "large, frozen", "(no gradient)")
    box(ax, (2.95, 0.6), (2.35, 1.35), GREEN, "student", "small, trained", "(this is what you keep)")
    arrow(ax, (2.15, 2.95), (2.95, 4.1), bend=-0.12)
    arrow(ax, (2.15, 2.45), (2.95, 1.3), bend=0.12)

    arrow(ax, (5.3, 4.12), (6.7, 4.12), BLUE[1])
    arrow(ax, (5.3, 1.28), (6.7, 1.28), GREEN[1])
    note(ax, 6.0, 4.34, "logits, features", BLUE[1])
    note(ax, 6.0, 1.05, "logits, features", GREEN[1])

    arrow(ax, (2.15, 2.7), (6.7, 2.7), GREY[1])
    note(ax, 4.12, 2.88, "labels", GREY[1])
    terms_box(ax)

    box(ax, (11.6, 2.0), (2.15, 1.4), GREY, "loss", "sum of the terms,", "each with its weight")
    arrow(ax, (10.85, 2.7), (11.6, 2.7))
    ax.plot([12.67, 12.67, 4.12], [2.0, 0.3, 0.3], color=GREEN[1], lw=1.5, ls=(0, (4, 2)), solid_capstyle="butt")
    arrow(ax, (4.12, 0.3), (4.12, 0.6), GREEN[1])
    ax.text(8.77, 0.3, " gradient ", ha="center", va="center", fontsize=9, color=GREEN[1], backgroundcolor="white")
    fig.savefig(out, dpi=130, facecolor="white")
    plt.close(fig)
    return out


if __name__ == "__main__":
    print(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT))
