"""From the picture as the student sees it to the picture as a network from elsewhere was trained to see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_choice

Order = Literal["rgb", "bgr"]


class InputFormat(nn.Module):
    """Undoes the data's normalisation and applies a network's own: one multiplication and one addition a channel.

    Args:
        mean, std: what the network subtracts and divides by, in its own channel order, relative to `scale`.
        data_mean, data_std: of the channels that it is shown, as the data have them (RGB), relative to 1.
        scale: value of white before `mean` is subtracted: 1, or 255.
        order: of the network's channels, `rgb` or `bgr`.
        multiple: the sides that the network takes are multiples of this; pictures are scaled up to the next.
        size: (height, width) of all pictures that the network takes; None takes them as they come.

    Raises:
        ConfigError: for numbers that are not as many as channels (three of a network from elsewhere), a deviation or
            scale that is not positive, or an unknown order.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        data_mean: Sequence[float],
        data_std: Sequence[float],
        scale: float = 1.0,
        order: Order = "rgb",
        multiple: int = 1,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check_numbers(mean=mean, std=std, data_mean=data_mean, data_std=data_std)
        if not 0 < scale < math.inf:
            raise ConfigError(f"teacher.model.input.scale must be a number above 0, got {scale}")
        require_choice("teacher.model.input.order", order, get_args(Order), error=ConfigError)
        if multiple < 1 or (size is not None and (len(size) != 2 or min(size) < 1)):
            raise ConfigError("teacher.model.input: multiple must be at least 1, size two numbers above 0")
        places = tuple(range(len(mean)))
        self.source = places if order == "rgb" else places[::-1]
        self.gain = [data_std[c] * scale / std[i] for i, c in enumerate(self.source)]
        self.offset = [(data_mean[c] * scale - mean[i]) / std[i] for i, c in enumerate(self.source)]
        self.multiple, self.size = multiple, None if size is None else (int(size[0]), int(size[1]))

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float, as the data normalise it -> (N, C, H', W') float, as the network takes it."""
        return self._fitted(self._normalised(image))

    def _normalised(self, image: Tensor) -> Tensor:
        if self.source[0] == 0 and all(abs(g - 1) < 1e-6 for g in self.gain) and max(map(abs, self.offset)) < 1e-6:
            return image
        # Plain numbers, not buffers: a network in half precision would round them, and they cost no copy to a GPU.
        rows = zip(self.source, self.gain, self.offset, strict=True)
        return torch.stack([image[:, channel] * gain + offset for channel, gain, offset in rows], dim=1)

    def _fitted(self, image: Tensor) -> Tensor:
        """Scale, rather than pad: maps of any stride then cover the whole picture, as the student's do."""
        height, width = image.shape[-2:]
        size = self.size or (_up(height, self.multiple), _up(width, self.multiple))
        if size == (height, width):
            return image
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _check_numbers(**values: Sequence[float]) -> None:
    channels = len(values["data_mean"])
    for name, numbers in values.items():
        if len(numbers) != channels or not all(math.isfinite(n) for n in numbers):
            number = "three" if channels == 3 else f"{channels}"
            raise ConfigError(f"teacher.model.input.{name} must be {number} finite numbers, got {list(numbers)}")
        if name.endswith("std") and min(numbers) <= 0:
            raise ConfigError(f"teacher.model.input.{name} must be above 0, got {list(numbers)}")
