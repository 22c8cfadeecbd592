"""All that travels between data, networks and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """A batch of images with their labels and the place they were cut from.

    Attributes:
        image: (N, C, H, W); uint8 RGB as the loader gives it (of other data other channels, and uint16 of 16 bits),
            float32 and normalised once on the device.
        label: (N, H, W) int64 class ids; `ignore_index` where a pixel takes no part. Of a picture without labels
            0 on the photograph, which is no class there, and `ignore_index` on the padding.
        box: (N, 4) float32, left, top, right and bottom of the picture as fractions of the original
            photograph. Left and right are exchanged where the picture was mirrored; a value below 0 or above 1
            means padding beyond the photograph.
        names: N names (paths, or recipes of generated scenes) for messages and files.
        views: N numbers of what the images show; of the same number every pixel is the same, at every step of the
            run. None where every step shows something new.
        colours: (N, 4) float32, factors of brightness, contrast and saturation and the turn of the hue, that the
            device applies; None where the colours are as they are to be.
        labelled: the first so many pictures have labels, those behind them none; None where all have.
    """

    image: Tensor
    label: Tensor
    box: Tensor
    names: list[str]
    views: list[int] | None = None
    colours: Tensor | None = None
    labelled: int | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; a GPU copies in its own time what lies in pinned memory."""
        return self._each(lambda x: x.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU can copy from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        colours = None if self.colours is None else change(self.colours)
        return replace(self, image=change(self.image), label=change(self.label), box=change(self.box), colours=colours)


@dataclass
class Outputs:
    """What a network gives.

    Attributes:
        logits: (N, K, h, w), at the resolution of the features.
        features: feature maps by name: `stage1` to `stage4` of the backbone and `head`, the map before the classifier.
        auxiliary: (N, K, h, w) logits of the auxiliary head; None outside training or without such a head.
    """

    logits: Tensor
    features: Mapping[str, Tensor]
    auxiliary: Tensor | None = None
