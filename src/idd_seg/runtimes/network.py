"""A file of another runtime in the place of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from idd_seg.errors import ConfigError
from idd_seg.runtimes.onnx_session import OnnxSession
from idd_seg.runtimes.openvino_session import OpenVinoSession, Precision
from idd_seg.types import Outputs

# By the ending of the file's name.
ENDINGS = (".onnx", ".xml")


class FileNetwork(nn.Module):
    """A file that scales and normalises by itself: it takes pictures as they are, and gives logits of their size.

    Args:
        session: (N, C, H, W) of `dtype` -> (N, K, H, W).
        white: largest value of a picture.
    """

    def __init__(
        self, session: Callable[[Tensor], Tensor], num_classes: int, in_channels: int, dtype: torch.dtype, white: int
    ) -> None:
        super().__init__()
        self.session, self.num_classes, self.in_channels = session, num_classes, in_channels
        self.dtype, self.white = dtype, white

    def forward(self, image: Tensor) -> Outputs:
        """(N, C, H, W), 0 to `white`, whole numbers or float -> logits (N, K, H, W)."""
        if image.is_floating_point():  # of another scale
            image = image.round().clamp(0, self.white)
        return Outputs(self.session(image.to(self.dtype).contiguous()), {})


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
