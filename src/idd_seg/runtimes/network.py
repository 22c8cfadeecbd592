"""A file of another runtime in the place of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from idd_seg.data.pipeline.pixels import Pixels
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.runtimes.onnx_session import OnnxSession
from idd_seg.runtimes.openvino_session import OpenVinoSession, Precision
from idd_seg.types import Outputs

# By the ending of the file's name.
ENDINGS = (".onnx", ".xml")
TRIED = (32, 40)  # sides of the picture that shows what a file takes and gives


class FileNetwork(nn.Module):
    """A file that scales and normalises by itself: it takes pictures as they are, and gives logits of their size.

    Args:
        path: of the file.
        session: (N, C, H, W) of `pixels` -> (N, K, H, W).

    Raises:
        CheckpointError: if the file takes or gives something else.
    """

    def __init__(self, path: Path, session: Callable[[Tensor], Tensor], num_classes: int, pixels: Pixels) -> None:
        super().__init__()
        self.path, self.session, self.num_classes, self.in_channels = path, session, num_classes, pixels.channels
        self.dtype, self.white = getattr(torch, str(pixels.dtype)), pixels.white
        self(torch.zeros(1, pixels.channels, *TRIED, dtype=self.dtype))

    def forward(self, image: Tensor) -> Outputs:
        """(N, C, H, W), 0 to `white`, whole numbers or float -> logits (N, K, H, W)."""
        if image.is_floating_point():  # of another scale
            image = image.round().clamp(0, self.white)
        logits = self.session(image.to(self.dtype).contiguous())
        expected = (len(image), self.num_classes, *image.shape[2:])
        if logits.shape != expected:
            raise CheckpointError(
                f"'{self.path}' gives {tuple(logits.shape)}, and config.json would have it give {expected}: "
                "one of the two is of another network"
            )
        return Outputs(logits, {})


def session_of(path: Path, precision: Precision = "float32") -> Callable[[Tensor], Tensor]:
    """Open a file in the runtime that its ending names.

    Raises:
        ConfigError: for another precision than float32 in a runtime that knows no other.
        UserError: without the runtime's package.
        CheckpointError: if the file can't be read.
    """
    if path.suffix == ".xml":
        return OpenVinoSession(path, precision)
    if precision != "float32":
        raise ConfigError(f"precision={precision} is of OpenVINO's files (.xml), and this is '{path.name}'")
    return OnnxSession(path)
