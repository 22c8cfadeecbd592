"""The options of class distances: what each may be, and which go together."""

from __future__ import annotations

from typing import Literal, get_args

from idd_seg.losses.ops.cells import RESIZES
from idd_seg.losses.ops.class_distances import Distance, Normalize, Reduction, Side
from idd_seg.losses.ops.prototypes import SCOPES
from idd_seg.ops.validation import require_above, require_choice

Level = Literal["classes", "pixels"]
SIGMA, TEMPERATURE = 1.0, 0.2  # where they are left out


def check_distances(
    *,
    normalize: str = "mean",
    scope: str = "image",
    min_pixels: float = 1,
    resize: str = "nearest",
    reduction: str = "mean",
    distance: str = "euclidean",
    side: str = "both",
    sigma: float | None = None,
    level: str = "classes",
    temperature: float | None = None,
) -> None:
    """Raise a ValueError for an option that is unknown or out of range, or for options that make no sense together."""
    require_choice("normalize", normalize, get_args(Normalize))
    require_choice("scope", scope, SCOPES)
    require_choice("resize", resize, RESIZES)
    require_choice("reduction", reduction, get_args(Reduction))
    require_choice("distance", distance, get_args(Distance))
    require_choice("side", side, get_args(Side))
    require_choice("level", level, get_args(Level))
    require_above("min_pixels", min_pixels, 0)
    for name, value in (("sigma", sigma), ("temperature", temperature)):
        if value is not None:
            require_above(name, value, 0)
    if sigma is not None and distance != "gaussian":
        raise ValueError(f"sigma={sigma} is the width of distance=gaussian; with distance={distance} leave it null")
    if level == "classes" and temperature is not None:
        raise ValueError(f"temperature={temperature} is of level=pixels; with level=classes leave it null")
    if level == "pixels":
        _check_pixels(reduction, distance, side)


def _check_pixels(reduction: str, distance: str, side: str) -> None:
    if distance == "gaussian":
        raise ValueError(
            "distance=gaussian is of level=classes; at pixels it is distance=squared, temperature 2 sigma^2"
        )
    for name, value, usual in (("side", side, "both"), ("reduction", reduction, "mean")):
        if value != usual:
            raise ValueError(f"{name}={value} is about pairs of classes; with level=pixels leave it {usual}")
