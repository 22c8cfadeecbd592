"""What a checkpoint says of the pictures that its network was trained on, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from idd_seg.checkpoints.reader import Saved
from idd_seg.data.pipeline.pixels import MOST_CHANNELS, RGB, Bits, Pixels
from idd_seg.errors import CheckpointError


@dataclass(frozen=True)
class DataCard:
    """Classes, colours and normalisation.

    Attributes:
        class_names, palette: K names, and K RGB colours 0 to 255.
        mean, std: of the normalised pictures, for each channel (R, G, B), relative to 0 to 1.
        image_scale: size of the picture that the network sees, relative to the file.
        ignore_index: label value that takes no part.
        pixels: channels and bits of the pictures.
    """

    name: str
    class_names: list[str]
    palette: list[tuple[int, int, int]]
    mean: list[float]
    std: list[float]
    image_scale: float
    ignore_index: int
    pixels: Pixels = RGB

    @classmethod
    def of(cls, saved: Saved) -> DataCard:
        """Read the card of a checkpoint.

        Raises:
            CheckpointError: that names the first entry that is missing or out of range.
        """
        node, path = saved.config("data"), saved.path
        names = node.get("class_names")
        if not isinstance(names, Sequence) or isinstance(names, str) or not 2 <= len(names) <= 2**16:
            raise _refused(path, "class_names", names)
        palette = _rows(node.get("palette"), len(names))
        if palette is None or not all(isinstance(v, int) and 0 <= v <= 255 for colour in palette for v in colour):
            raise _refused(path, "palette", node.get("palette"))
        channels, bits = node.get("channels", RGB.channels), node.get("bits", RGB.bits)
        if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
            raise _refused(path, "channels", channels)
        if type(bits) is not int or bits not in get_args(Bits):
            raise _refused(path, "bits", bits)
        mean, std = (_numbers(node.get(key), channels) for key in ("mean", "std"))
        if mean is None:
            raise _refused(path, "mean", node.get("mean"))
        if std is None or min(std) <= 0:
            raise _refused(path, "std", node.get("std"))
        scale = node.get("image_scale", 1.0)
        if not _is_number(scale) or not 0 < scale <= 100:
            raise _refused(path, "image_scale", scale)
        ignore = node.get("ignore_index", 255)
        if not isinstance(ignore, int):
            raise _refused(path, "ignore_index", ignore)
        colours = [(int(r), int(g), int(b)) for r, g, b in palette]
        pixels = Pixels(channels, bits)
        return cls(str(node.get("name")), [str(n) for n in names], colours, mean, std, float(scale), ignore, pixels)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as a data set's configuration has them."""
        return {
            "name": self.name,
            "num_classes": len(self.class_names),
            "class_names": self.class_names,
            "palette": [list(colour) for colour in self.palette],
            "channels": self.pixels.channels,
            "bits": self.pixels.bits,
            "mean": self.mean,
            "std": self.std,
            "image_scale": self.image_scale,
            "ignore_index": self.ignore_index,
        }


class Normalise(nn.Module):
    """(N, C, H, W) of any type, RGB 0 to 255 or as the card says -> float32 of mean 0 and deviation 1.

    As the data modules compute it.
    """

    def __init__(self, card: DataCard) -> None:
        super().__init__()
        mean, std = torch.tensor(card.mean), torch.tensor(card.std)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (card.pixels.white * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (mean / std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # Pictures lie with their colours side by side; the layers want planes.
        return image.to(torch.float32, memory_format=torch.contiguous_format) * self.scale - self.shift


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _numbers(value: Any, number: int) -> list[float] | None:
    if not isinstance(value, Sequence) or len(value) != number or not all(_is_number(v) for v in value):
        return None
    return [float(v) for v in value]


def _rows(value: Any, number: int) -> list[Sequence[Any]] | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != number:
        return None
    return list(value) if all(isinstance(row, list | tuple) and len(row) == 3 for row in value) else None


def _refused(path: Path, key: str, value: Any) -> CheckpointError:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
    return CheckpointError(f"'{path}': data.{key} is {shown}, which can't be of a run of this program")
