"""All that travels between data, networks and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """A batch of images with their labels and the place they were cut from.

    Attributes:
        image: (N, 3, H, W); uint8 RGB as the loader gives it, float32 and normalised once on the device.
        label: (N, H, W) int64 class ids; `ignore_index` where a pixel takes no part.
        box: (N, 4) float32, left, top, right and bottom of the picture as fractions of the original
            photograph. Left and right are exchanged where the picture was mirrored; a value below 0 or above 1
            means padding beyond the photograph.
        names: N names (paths, or recipes of generated scenes) for messages and files.
    """

    image: Tensor
    label: Tensor
    box: Tensor
    names: list[str]


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
