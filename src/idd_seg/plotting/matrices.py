"""Matrices of classes with their names: distances, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from idd_seg.plotting.figures import figure, literal, shorten

NAME = 18  # letters of a class at an axis
LEFT, BESIDE, BELOW = 1.2, 1.9, 1.5  # inches: names at the left; names and scale; title and names below
FEW, MANY = 20, 60  # up to FEW classes have large cells; from MANY on they have the smallest that letters fit in


class Matrices(NamedTuple):
    """Of a network: distances between the classes (K, K), NaN for absent ones; counts (K, K), rows truth."""

    distances: NDArray[np.floating]
    confusion: NDArray[np.integer]


def draw(networks: Mapping[str, Matrices], class_names: Sequence[str]) -> Any:
    """Draw a row a network: class distances, and the confusion as shares of each true class.

    Classes that are in no truth and in no prediction are left out.
    """
    there = np.any([m.confusion.sum(0) + m.confusion.sum(1) > 0 for m in networks.values()], axis=0)
    names = [literal(shorten(name, NAME)) for name, seen in zip(class_names, there, strict=True) if seen]
    cell = float(np.interp(len(names), (FEW, MANY), (0.2, 0.095)))  # inches
    side = max(2.6, cell * len(names))
    width, height = side + BESIDE, side + BELOW
    fig = figure(2 * width, len(networks) * height)
    size = min(8.0, 72 * cell * 0.8)  # points
    top = max(float(np.nan_to_num(m.distances).max()) for m in networks.values())
    for i, (name, found) in enumerate(networks.items()):
        bottom = 1 - (i * height + 0.25 + side) / (len(networks) * height)
        left, right = (
            fig.add_axes(
                ((j * width + LEFT) / (2 * width), bottom, side / (2 * width), side / (len(networks) * height))
            )
            for j in (0, 1)
        )
        kept = np.ix_(there, there)
        rows = found.confusion.sum(1, keepdims=True)
        taken = np.divide(found.confusion, rows, out=np.full(found.confusion.shape, np.nan), where=rows > 0)
        _matrix(left, found.distances[kept], names, size, f"{name}: class distances", top)
        _matrix(right, 100 * taken[kept], names, size, f"{name}: confusion, % of the true class (rows)", 100, root=True)
    return fig


def _matrix(
    axis: Any, values: NDArray[Any], names: Sequence[str], size: float, title: str, top: float, *, root: bool = False
) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize, PowerNorm

    # By the root a confusion of few percent is seen beside the diagonal.
    norm = PowerNorm(0.5, 0, top) if root else Normalize(0, top)
    shades = colormaps["viridis"].with_extremes(bad="0.8")
    drawn = axis.imshow(np.ma.masked_invalid(values), norm=norm, cmap=shades, interpolation="nearest")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.tick_params(length=2, pad=1)
    axis.set_title(literal(title), fontsize=9)
    bar = axis.figure.colorbar(drawn, cax=axis.inset_axes((1.02, 0, 0.03, 1)))
    bar.ax.tick_params(labelsize=7)
    if root:
        bar.set_ticks([0, 1, 5, 10, 25, 50, 100])
