"""Mean and deviation of each channel, which the normalisation of pictures that are no photographs needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, open_dict

from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.data.pipeline.source import Raster

LEAST = 1e-4  # a deviation of a channel that hardly changes


@dataclass(frozen=True)
class ChannelSums:
    """Number of pixels, and the sums of their values and squared values in each channel, relative to white."""

    number: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, image: Raster, pixels: Pixels) -> ChannelSums:
        """Count a picture (H, W, C)."""
        values = image.reshape(-1, image.shape[2]).astype(np.float64) / pixels.white
        return cls(len(values), values.sum(0), np.square(values).sum(0))

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(self.number + other.number, self.sums + other.sums, self.squares + other.squares)

    @property
    def mean(self) -> list[float]:
        """Of each channel, relative to white: what `data.mean` is to be."""
        return [round(float(value), 5) for value in self.sums / self.number]

    @property
    def std(self) -> list[float]:
        """Deviation over all pixels, relative to white, at least `LEAST`: what `data.std` is to be."""
        variance = self.squares / self.number - np.square(self.sums / self.number)
        return [round(float(value), 5) for value in np.sqrt(variance.clip(0)).clip(LEAST)]

    def options(self) -> str:
        """Return both as options of the command line."""
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"'data.mean=[{mean}]' 'data.std=[{std}]'"


def without_normalisation(cfg: DictConfig) -> None:
    """Let a data set be looked at whose `data.mean` and `data.std` are not known yet, and are of other channels."""
    channels = cfg.data.channels
    if type(channels) is int and channels > 0 and len(cfg.data.mean) != channels:
        with open_dict(cfg):
            cfg.data.mean, cfg.data.std = [0.0] * channels, [1.0] * channels
