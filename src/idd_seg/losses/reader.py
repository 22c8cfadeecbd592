"""A small network that reads absolute position from feature maps alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from idd_seg.losses.grid import as_float32, masked_mean
from idd_seg.losses.own_step import own_step
from idd_seg.losses.position_maps import position_maps


class PositionReader(nn.Module):
    """Convolutions, BatchNorm and a sigmoid, as PosENet (Islam, Jia and Bruce, ICLR 2020).

    Args:
        channels: width C of the (concatenated) feature maps.
        targets: names of the maps to predict; see `position_maps`.
        depth: number of 3 x 3 convolutions; all but the last are `width` wide.
        padding: 0 or 1. With 0 each convolution takes a border of one cell; zero padding would itself tell the
        position.

    Raises:
        ValueError: if depth < 1 or padding is neither 0 nor 1.
    """

    def __init__(
        self, channels: int, targets: Sequence[str], depth: int = 1, padding: int = 0, width: int = 64
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be >= 1, got {depth}")
        if padding not in (0, 1):
            raise ValueError(f"padding must be 0 or 1, got {padding}")
        self.targets = tuple(targets)
        self.border = depth * (1 - padding)
        widths = [channels, *[width] * (depth - 1), len(self.targets)]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, padding=padding, bias=False), nn.BatchNorm2d(after)]
            layers.append(nn.Sigmoid() if i == depth - 1 else nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Read (N, C, h, w) -> (N, T, h - 2 border, w - 2 border) in [0, 1].

        Raises:
            ValueError: if the map is too small for a convolution without padding.
        """
        if min(features.shape[-2:]) <= 2 * self.border:
            raise ValueError(
                f"a feature map of {features.shape[-2]} x {features.shape[-1]} is too small for the position reader; "
                "take larger crops, or loss.position.padding=1"
            )
        weights = next(self.parameters()).dtype
        return as_float32(self.layers(features.to(weights)))

    def truth(self, box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the maps to predict for features of `size`, and where they are valid, both cut to the reading."""
        maps, inside = position_maps(box, size, self.targets)
        maps = maps.to(torch.promote_types(maps.dtype, next(self.parameters()).dtype))
        border = self.border
        cut = (slice(border, size[0] - border), slice(border, size[1] - border))
        return maps[..., cut[0], cut[1]], inside[..., cut[0], cut[1]]


def fit_step(
    reader: PositionReader, optimizer: torch.optim.Optimizer, features: Tensor, maps: Tensor, valid: Tensor
) -> Tensor:
    """One optimizer step of the reader on fixed features; return its mean squared error before the step.

    Raises:
        ValueError: if the batch gives a single cell.
    """
    if valid.numel() == 1:
        raise ValueError(
            "the position reader's BatchNorm needs more than one cell to learn; take larger crops or batches"
        )
    return own_step(reader, optimizer, lambda: masked_mean((reader(features.detach()) - maps).square(), valid))


def frozen_reader(
    channels: int, targets: Sequence[str], depth: int, padding: int, lr: float
) -> tuple[PositionReader, torch.optim.Optimizer]:
    """Build a reader whose parameters only `fit_step` moves, with its Adam optimizer."""
    reader = PositionReader(channels, targets, depth, padding).requires_grad_(False).eval()
    return reader, torch.optim.Adam(reader.parameters(), lr=lr)


def load_reader(reader: PositionReader, path: str) -> None:
    """Load a reader's weights from a safetensors file.

    Raises:
        ValueError: if the file can't be read, or is of another reader.
    """
    try:
        reader.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"reader_weights '{path}' can't be loaded: {str(error).splitlines()[0]}") from error
