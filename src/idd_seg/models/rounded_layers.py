"""Convolutions whose inputs and weights are rounded to 8 bits, with gradients as if they were not.

B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 3: ranges by moving averages; the rounding passes gradients on within the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from idd_seg.distributed.collectives import max_over_ranks

LEVELS = 255  # of an input, unsigned
WEIGHT_LEVELS = 63  # on each side of 0: 7 bits, as exported files have them (exporting/int8_onnx.py)


class RoundedLayers(TorchFunctionMode):
    """Within it, each convolution of a network takes its input rounded to 8 bits, its weights to 7.

    Inputs have one range, which holds 0, and weights a symmetric one for each output channel, as runtimes have them.
    In training the ranges follow the inputs; in evaluation they stay.

    Args:
        network: its parameters must stay the same objects.
        momentum: share of a new batch in the ranges.

    Attributes:
        ranges: by the name of a convolution's weight, (lowest, highest) of its input.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        super().__init__()
        self.network, self.momentum = network, momentum
        self.names = {
            id(module.weight): f"{name}.weight"
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        self.ranges: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is F.conv2d and id(args[1]) in self.names:
            image, weight, *others = args
            rounded = self._input(self.names[id(weight)], image)
            # Rounding is in float32; a training whose weights are of another type has a bias of that type.
            args = (rounded.to(image.dtype), rounded_weight(weight).to(weight.dtype), *others)
        return func(*args, **(kwargs or {}))

    def _input(self, name: str, x: Tensor) -> Tensor:
        x = x.float()
        if self.network.training:
            with torch.no_grad():
                seen = torch.stack([x.amin().clamp(max=0), x.amax().clamp(min=0)])
            self._seen[name] = seen
            self.ranges.setdefault(name, seen)
        # Before the first batch of a training no range is known.
        return rounded_input(x, *self.ranges[name]) if name in self.ranges else x

    def enter(self) -> None:
        """Begin to round, for a hook before the network's `forward`."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """End it, for a hook behind."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def follow(self) -> None:
        """Move the ranges towards those of the last batch, of all processes."""
        if not self._seen:
            return
        names = sorted(self._seen)
        # The largest of -lowest and highest: one message for all layers.
        widest = max_over_ranks(
            torch.stack([self._seen[name] * self._seen[name].new_tensor([-1, 1]) for name in names])
        )
        for name, (low, high) in zip(names, widest, strict=True):
            new = torch.stack([-low, high])
            self.ranges[name] = torch.lerp(self.ranges[name].to(new), new, self.momentum)
        self._seen = {}


def rounded_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round `x` to 256 values from `low` <= 0 to `high` >= 0, of which one is 0."""
    scale = ((high - low) / LEVELS).clamp(min=1e-12)
    zero = (-low / scale).round().clamp(0, LEVELS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)


def rounded_weight(weight: Tensor) -> Tensor:
    """Round (O, I, h, w) to 127 values for each output channel, symmetric around 0."""
    weight = weight.float()
    scale = (weight.detach().flatten(1).abs().amax(1) / WEIGHT_LEVELS).clamp(min=1e-12)
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)
