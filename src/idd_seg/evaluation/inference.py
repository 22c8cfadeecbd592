"""How a network is shown a picture: whole or through a sliding window, at several scales, mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.ops.upsample import Patch, View
from idd_seg.ops.validation import require_choice

Mode = Literal["whole", "slide"]


class Inference:
    """Shows a network a picture, and returns coarse logits that `bands` brings to full size.

    Args:
        mode: `whole`, or `slide`: windows of `crop` that overlap; a side shorter than the window is shown whole.
        crop: (height, width) of the window in pixels of the picture that the network sees.
        stride: (down, across) from window to window; None takes two thirds of the window.
        scales: of the picture; the probabilities of several are averaged.
        flip: show the mirror image too.

    Raises:
        ConfigError: for an unknown mode, a window or stride out of range, or a scale that is not positive.
    """

    def __init__(
        self,
        mode: Mode = "whole",
        crop: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        require_choice("eval.mode", mode, get_args(Mode), error=ConfigError)
        if mode == "slide" and crop is None:
            raise ConfigError("eval.mode=slide needs the size of the window: eval.crop=[height,width]")
        if not isinstance(flip, bool):
            raise ConfigError(f"eval.flip must be true or false, got '{flip}'")
        if not _is_list(scales) or not scales or not all(isinstance(s, int | float) and 0 < s < 100 for s in scales):
            raise ConfigError(f"eval.scales must be a list of factors above 0, e.g. [0.75,1.0,1.25], got {scales}")
        if mode == "whole" and (crop is not None or stride is not None):
            raise ConfigError("eval.crop and eval.stride are of windows; add eval.mode=slide, or leave them out")
        window = None if crop is None else _pair("eval.crop", crop)
        self.crop = window if mode == "slide" else None
        self.stride = None
        if self.crop is not None:
            apart = [max(1, 2 * side // 3) for side in self.crop] if stride is None else stride
            self.stride = _pair("eval.stride", apart)
            if any(step > side for step, side in zip(self.stride, self.crop, strict=True)):
                raise ConfigError(f"eval.stride={list(self.stride)} leaves gaps between windows of {list(self.crop)}")
        self.mode, self.scales, self.flip = mode, [float(s) for s in scales], flip

    def as_dict(self) -> dict[str, Any]:
        """Return how the network is shown a picture, as plain values."""
        return {"mode": self.mode, "crop": self.crop, "stride": self.stride, "scales": self.scales, "flip": self.flip}

    def enlarged(self, factor: float) -> Inference:
        """Return the same with windows and strides that are `factor` times as large."""
        if self.crop is None or self.stride is None:
            return self
        crop, stride = ([max(1, round(factor * side)) for side in pair] for pair in (self.crop, self.stride))
        return Inference("slide", crop, stride, self.scales, self.flip)

    @torch.no_grad()
    def views(self, network: nn.Module, image: Tensor, size: Sequence[int]) -> list[View]:
        """Show (N, 3, H, W) normalised images; the patches' boxes are in pixels of a picture of `size`."""
        mirrors = (False, True) if self.flip else (False,)
        return [self._view(network, scaled(image, s), mirror, size) for s, mirror in product(self.scales, mirrors)]

    def _view(self, network: nn.Module, image: Tensor, mirror: bool, size: Sequence[int]) -> View:
        height, width = image.shape[-2:]
        down, across = size[0] / height, size[1] / width
        patches = []
        for top, left, bottom, right in self.windows(height, width):
            part = image[..., top:bottom, left:right]
            logits = network(part.flip(-1) if mirror else part).logits
            box = (top * down, left * across, bottom * down, right * across)
            patches.append(Patch(logits.flip(-1) if mirror else logits, box))
        return patches

    def windows(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Return top, left, bottom, right of the windows over a picture; the last ones end at its border."""
        if self.crop is None or self.stride is None:
            return [(0, 0, height, width)]
        rows = _starts(height, self.crop[0], self.stride[0])
        columns = _starts(width, self.crop[1], self.stride[1])
        return [
            (top, left, min(height, top + self.crop[0]), min(width, left + self.crop[1]))
            for top, left in product(rows, columns)
        ]


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = max(0, length - window)
    return [*range(0, last, stride), last]


def scaled(image: Tensor, scale: float) -> Tensor:
    """Return float images (N, 3, H, W) at another size."""
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _pair(key: str, value: Sequence[int]) -> tuple[int, int]:
    if not _is_list(value) or len(value) != 2 or not all(isinstance(v, int) and v >= 1 for v in value):
        raise ConfigError(f"{key} must be [height,width] in whole pixels, got {value}")
    return int(value[0]), int(value[1])
