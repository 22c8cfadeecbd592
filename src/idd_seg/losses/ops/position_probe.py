"""A small network that reads absolute position from feature maps alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from idd_seg.losses.ops.grid import as_float32, masked_mean
from idd_seg.losses.ops.inner_step import own_step
from idd_seg.losses.ops.position_maps import position_maps
from idd_seg.ops.precision import Widening


class PositionProbe(Widening):
    """Convolutions, BatchNorm and a sigmoid, as PosENet (Islam, Jia and Bruce, ICLR 2020).

    Args:
        channels: width C of the (concatenated) feature maps.
        targets: names of the maps to predict; see `position_maps`.
        depth: number of 3 x 3 convolutions; all but the last are `width` wide.
        padding: 0 or 1. With 0 each convolution takes a border of one cell; zero padding would itself tell
            the position.

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

    def least(self, size: Sequence[int], cells: int = 1) -> tuple[int, int]:
        """Return `size`, or where it is larger that of the smallest map of which the reader reads `cells` a side."""
        smallest = 2 * self.border + cells
        return max(size[0], smallest), max(size[1], smallest)

    def truth(self, box: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the maps to predict for features of `size`, and where they are valid, both cut to the reading."""
        maps, inside = position_maps(box, size, self.targets)
        maps = maps.to(torch.promote_types(maps.dtype, next(self.parameters()).dtype))
        border = self.border
        cut = (slice(border, size[0] - border), slice(border, size[1] - border))
        return maps[..., cut[0], cut[1]], inside[..., cut[0], cut[1]]


def fit_step(
    reader: PositionProbe, optimizer: torch.optim.Optimizer, features: Tensor, maps: Tensor, valid: Tensor
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


def frozen_probe(
    channels: int, targets: Sequence[str], depth: int, padding: int, lr: float
) -> tuple[PositionProbe, torch.optim.Optimizer]:
    """Build a reader whose parameters only `fit_step` moves, with its Adam optimizer."""
    reader = PositionProbe(channels, targets, depth, padding).requires_grad_(False).eval()
    return reader, torch.optim.Adam(reader.parameters(), lr=lr)


def keep_probe(reader: PositionProbe, path: Path, about: Mapping[str, str]) -> None:
    """Write a reader's weights as safetensors, and beside them what it has learnt to read, and from what."""
    save_file(reader.state_dict(), path, dict(about))


def load_probe(reader: PositionProbe, path: str, about: Mapping[str, str] | None = None) -> None:
    """Load a reader's weights from a file of `keep_probe`.

    Raises:
        ValueError: if the file can't be read, or is of another reader: of other shapes, or by what it says of itself.
    """
    try:
        with safe_open(path, "pt") as file:
            noted = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        for option, ours in (about or {}).items():
            if noted.get(option, ours) != ours:
                raise ValueError(
                    f"reader_weights '{path}' is of a reader with {option}={noted[option]}, here {option}={ours}; give "
                    "the reader's options as they were, or leave reader_weights out"
                )
        reader.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        # PyTorch's first line names the class of the network alone.
        reason = [line.strip() for line in str(error).splitlines()][:2][-1]
        raise ValueError(f"reader_weights '{path}' can't be loaded: {reason}") from error
