"""Fixed, content-free maps of absolute position: what a position reader is trained to predict."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

GAUSSIAN_SIGMA = 0.25
STRIPES = 4

Target = Literal["horizontal", "vertical", "gaussian", "horizontal_stripes", "vertical_stripes"]


def coordinates(box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """RankInfo of each cell of a grid in the original photograph.

    Args:
        box: (N, 4) left, top, right, bottom as fractions of the photograph; see `Batch.box`.
        size: (h, w) of the grid that covers the box.

    Returns:
        Two maps (N, 1, h, w): the cells' centres from left (0) to right (1), and from top (0) to bottom (1).
    """
    left, top, right, bottom = (edge[:, None, None, None] for edge in box.unbind(1))
    rows = (torch.arange(size[0], device=box.device, dtype=box.dtype) + 0.5) / size[0]
    columns = (torch.arange(size[1], device=box.device, dtype=box.dtype) + 0.5) / size[1]
    shape = (box.shape[0], 1, *size)
    across = (left + columns * (right - left)).expand(shape)
    down = (top + rows[:, None] * (bottom - top)).expand(shape)
    return across, down


def position_maps(box: Tensor, size: tuple[int, int], targets: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Maps in [0, 1] for each of `targets`, as in Islam, Jia and Bruce, ICLR 2020.

    Args:
        box: (N, 4); see `Batch.box`.
        size: (h, w).
        targets: names out of `Target`: ramps from left to right and from top to bottom, a Gaussian in the middle of
            the photograph (sigma a quarter of its sides), and four cosine periods of stripes down (horizontal) or
            across (vertical).

    Returns:
        maps (N, T, h, w), and (N, 1, h, w) bool: True on the photograph, False on padding.
    """
    across, down = coordinates(box, size)
    inside = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
    centre = ((across - 0.5) ** 2 + (down - 0.5) ** 2) / (2 * GAUSSIAN_SIGMA**2)
    maps = {
        "horizontal": across,
        "vertical": down,
        "gaussian": torch.exp(-centre),
        "horizontal_stripes": 0.5 - 0.5 * torch.cos(2 * math.pi * STRIPES * down),
        "vertical_stripes": 0.5 - 0.5 * torch.cos(2 * math.pi * STRIPES * across),
    }
    return torch.cat([maps[target] for target in targets], dim=1), inside


def whole_image_box(n: int, device: torch.device) -> Tensor:
    """Return the (n, 4) box of pictures that are taken as they are."""
    return torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(n, 4)
