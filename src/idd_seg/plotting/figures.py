"""Drawing: label maps in colour, rows of samples, class-distance matrices, position maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import printable
from idd_seg.ops.colours import IGNORED

MOST = 60  # classes of a legend
NAME = 24  # letters of a class in it


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure of inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(fig)
    return fig


def save(fig: Any, path: Path) -> Path:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, bbox_inches="tight")
    return path


def colourise(label: NDArray[Any], palette: Sequence[Sequence[int]]) -> UInt8:
    """(H, W) class ids -> (H, W, 3) RGB; what is no class is white."""
    table = np.full((256, 3), IGNORED, np.uint8)
    table[: len(palette)] = np.array(palette, np.uint8)
    return table[np.asarray(label).astype(np.uint8)]


def literal(text: str) -> str:
    """Return text that is drawn as it is: no mathematics between dollars, and nothing that is no UTF-8."""
    return printable(text).replace("$", r"\$")


def _broken(name: str, width: int = 16) -> str:
    """Break the name of a method, `kd+idd+position`, into lines of about `width` characters."""
    lines = [""]
    for part in name.replace("+", "+\n").split("\n"):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def show_image(axis: Any, image: NDArray[Any], title: str = "", ylabel: str = "") -> None:
    """Draw an image without ticks."""
    axis.imshow(image, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(literal(title), fontsize=9)
    if ylabel:
        axis.set_ylabel(_broken(literal(ylabel)), fontsize=9)


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many letters, the end of a longer one cut off."""
    return text if len(text) <= most else text[: most - 1] + "…"


def sample_rows(
    rows: Sequence[tuple[str, Sequence[UInt8]]],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    shown: Sequence[int],
) -> Any:
    """Draw named rows of pictures (H, W, 3), a column a sample, above a legend of the classes that are `shown`."""
    columns = len(rows[0][1])
    height, width = rows[0][1][0].shape[:2]
    fig = figure(2.2 * columns, 2.2 * len(rows) * height / width + 0.8)
    axes = fig.subplots(len(rows), columns, squeeze=False)
    for i, (name, pictures) in enumerate(rows):
        for j, picture in enumerate(pictures):
            show_image(axes[i][j], picture, ylabel=name if j == 0 else "")
    legend(fig, class_names, palette, shown)
    fig.subplots_adjust(wspace=0.03, hspace=0.03)
    return fig


def classes_in(labels: Iterable[NDArray[Any]], number: int) -> list[int]:
    """Return which of `number` classes label maps (H, W) show, by id; `number` itself, last, stands for what is none.

    Of more than MOST classes those that cover the most pixels.
    """
    counts = np.zeros(256, np.int64)
    for label in labels:
        counts += np.bincount(np.asarray(label).astype(np.uint8).ravel(), minlength=256)
    largest = np.argsort(-counts[:number], kind="stable")[:MOST]
    found = sorted(int(i) for i in largest if counts[i])
    return [*found, number] if counts[number:].any() else found


def legend(
    fig: Any,
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    shown: Sequence[int],
    columns: int = 6,
    height: float = 0.06,
) -> None:
    """Write the classes that are `shown` (see `classes_in`) with their colours below a figure, from `height` on."""
    from matplotlib.patches import Patch

    named = [*zip(class_names, palette, strict=True), ("no class", IGNORED)]
    patches = [
        Patch(facecolor=[c / 255 for c in named[i][1]], edgecolor="0.5", label=literal(shorten(named[i][0], NAME)))
        for i in shown
    ]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, height), "ncol": columns}
    fig.legend(handles=patches, fontsize=8, frameon=False, **place)
