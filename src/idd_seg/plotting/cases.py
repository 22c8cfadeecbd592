"""Single pictures and where masks of them are wrong, under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from idd_seg.data.pipeline.source import UInt8
from idd_seg.plotting.error_maps import COLOURS, OF_ONE, OF_TWO, coloured
from idd_seg.plotting.figures import classes_in, colourise, figure, legend, literal, show_image

WIDTH = 1.9  # inches of a picture
GAP = 0.2  # inches, more before a heading
LINE = 0.42  # inches of a title and the gap above it


class Case(NamedTuple):
    """A picture (H, W, 3), its title, class ids (H, W) of the truth and of each network, and states of its pixels."""

    title: str
    image: UInt8
    truth: UInt8
    masks: Mapping[str, UInt8]
    errors: UInt8


def draw(
    sections: Mapping[str, Sequence[Case]],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    errors: str,
    *,
    two: bool,
) -> Any:
    """Draw a row a picture: image, truth, masks and error map, with a legend of the colours.

    Args:
        sections: pictures by heading; at least one.
        errors: what the error maps are of, their column's title.
        two: whether they compare two networks.
    """
    rows = [(heading, i, case) for heading, cases in sections.items() for i, case in enumerate(cases)]
    columns = ["image", "truth", *rows[0][2].masks, errors]
    heights = [WIDTH * case.truth.shape[0] / case.truth.shape[1] for _, _, case in rows]
    lines = [
        LINE * (2.2 if place == 0 else 1) + (GAP if place == 0 and i else 0) for i, (_, place, _) in enumerate(rows)
    ]
    total = sum(heights) + sum(lines)
    fig = figure((WIDTH + 0.06) * len(columns), total)
    top = total
    for (heading, place, case), height, line in zip(rows, heights, lines, strict=True):
        top -= line
        if place == 0:
            fig.text(0, (top + 0.55) / total, literal(heading), fontsize=11, fontweight="bold", va="bottom")
        fig.text(0, (top + (0.24 if place == 0 else 0.06)) / total, literal(case.title), fontsize=8, va="bottom")
        masks = [colourise(ids, palette) for ids in (case.truth, *case.masks.values())]
        for j, picture in enumerate([case.image, *masks, coloured(case.errors)]):
            step = 1 / len(columns)
            axis = fig.add_axes((j * step, (top - height) / total, 0.97 * step, height / total))
            show_image(axis, picture, columns[j] if place == 0 else "")
        top -= height
    _key(fig, OF_TWO if two else OF_ONE, -0.1 / total)
    shown = classes_in((ids for *_, case in rows for ids in (case.truth, *case.masks.values())), len(class_names))
    legend(fig, class_names, palette, shown, len(columns), -0.5 / total)
    return fig


def _key(fig: Any, words: Mapping[int, str], height: float) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=[c / 255 for c in COLOURS[i]], edgecolor="0.5", label=word) for i, word in words.items()]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, height), "ncol": len(patches)}
    fig.legend(handles=patches, title="errors", title_fontsize=8, fontsize=8, frameon=False, **place)
