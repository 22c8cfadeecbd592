"""A teacher that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.ops.precision import Adjusting, Change, moves
from idd_seg.types import Outputs


class FrozenTeacher(Adjusting):
    """A network without gradient, always in evaluation mode, that no checkpoint ever holds.

    Args:
        network: gives `Outputs`, and the widths of its features as `channels`.
        source: path and hash of its weights, noted in checkpoints in the teacher's place.
        scale: of the pictures that it sees, relative to the student's; its maps are as much smaller.
        inputs: the channels of the pictures that it is shown, in its order; None for all.
        in_channels: that the network takes.
    """

    def __init__(
        self,
        network: nn.Module,
        source: Mapping[str, str] | None = None,
        scale: float = 1.0,
        inputs: Sequence[int] | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.scale, self.inputs, self.in_channels = float(scale), inputs, in_channels
        self.network = network.requires_grad_(False).eval()
        self.source = dict(source or {})
        self.precision: torch.dtype | None = None

    @property
    def channels(self) -> dict[str, int]:
        """Width of each feature map, by its name."""
        return self.network.channels  # type: ignore[return-value]

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode: BatchNorm statistics and dropout included."""
        return super().train(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return nothing: the teacher is named by path and hash, and put back when a run goes on."""
        destination: dict[str, Any] = kwargs.get("destination", args[0] if args else {})
        return destination if destination is not None else {}

    def compute_in(self, precision: torch.dtype) -> None:
        """Choose the precision of weights and computing: it stays, whatever a module around it is cast to."""
        self.to(precision)
        self.precision = precision

    def adjusted(self, change: Change) -> Change:
        return change if self.precision is None else moves(change)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Outputs:
        """(N, C, H, W) -> the network's outputs, without gradient."""
        if self.inputs is not None:
            # Slices, not an index: no table of places has to be on the device.
            image = torch.cat([image[:, channel : channel + 1] for channel in self.inputs], dim=1)
        if self.scale != 1:
            size = [max(1, round(self.scale * side)) for side in image.shape[-2:]]
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        kind = image.device.type
        if self.precision in (None, torch.get_autocast_dtype(kind)):
            return self.network(image)  # type: ignore[no-any-return]
        # Autocast would compute in its own precision, whatever that of the weights.
        with torch.autocast(kind, enabled=False):
            return self.network(image)  # type: ignore[no-any-return]


def teacher_is_not_missing(module: nn.Module, incompatible: Any) -> None:
    """Let a checkpoint be loaded that does not hold `teacher.`, as none does; a hook behind `load_state_dict`."""
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if not key.startswith("teacher.")]
