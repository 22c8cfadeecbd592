"""timm backbones, dilated to the output stride of segmentation where they can be."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import timm
import torch
import torch.distributed as dist
from timm.models import FeatureListNet, adapt_input_conv
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError, suggest
from idd_seg.models.pretrained.imagenet import pretrained_overlay, refuse_missing
from idd_seg.models.sizes import EVEN, find_sizes
from idd_seg.ops.quiet import quiet

STAGES = 4
STRIDES = (8, 16, 32)
OURS = (
    "features_only",
    "in_chans",
    "output_stride",
    "pretrained",
    "pretrained_cfg_overlay",
)  # arguments that are no options
# What timm raises for a network that has no dilated form, among others.
UNDILATED = (TypeError, AssertionError, NotImplementedError)
REFUSALS = (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError)


class Levels(nn.Module):
    """Four feature levels of an image: what every backbone gives.

    Attributes:
        channels: widths of the levels, asked of the network.
        strides: their strides relative to the image.
    """

    channels: list[int]
    strides: list[int]


class Backbone(Levels):
    """The last four feature levels of a timm network.

    Args:
        name: a timm model, e.g. `resnet18`.
        output_stride: 8, 16 or 32. A network that has no dilated form keeps its own strides, which is logged once.
        options: further arguments of the timm model, e.g. `stem_type`, `stem_width`, `channels`.
        pretrained: take ImageNet weights from timm's cache or hub.
        weights: a local file of weights in timm's naming (safetensors, or a PyTorch state dict), instead of
            `pretrained`.
        in_channels: of the images. The first convolution of weights, which are of three, is adapted; see `adapted`.

    Attributes:
        sizes: of the pictures that the network takes; others are scaled up to the next.

    Raises:
        ConfigError: for an unknown name, stride or option, or a network that does not give four levels of pictures of
            any size.
        CheckpointError: if weights are asked for and can't be had.
    """

    def __init__(
        self,
        name: str,
        output_stride: int = 8,
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        check_stride(output_stride)
        # With a tag of its weights, as in resnet18.a1_in1k, or without.
        known = timm.list_models(pretrained="." in name)
        if name not in known:
            raise ConfigError(f"backbone '{name}' is not a timm model{suggest(name, known, 0.5)}")
        if taken := [key for key in options or {} if key in OURS]:
            raise ConfigError(f"backbone '{name}': '{taken[0]}' is no option of its own; give student.{taken[0]}")
        overlay = pretrained_overlay(name, pretrained, weights, options)
        net = _create(name, output_stride, dict(options or {}), overlay)
        if overlay is not None and "file" in overlay:
            refuse_missing(net, overlay["file"], name)
        if in_channels != 3:
            wide = _create(name, output_stride, {**(options or {}), "in_chans": in_channels}, None)
            net = wide if overlay is None else adapted(net, wide, name, in_channels)
        self.net = net
        info: Any = self.net.feature_info
        self.channels = info.channels()[-STAGES:]
        self.strides = info.reduction()[-STAGES:]
        if len(self.channels) < STAGES:
            raise ConfigError(f"backbone '{name}' has {len(self.channels)} feature levels, {STAGES} are needed")
        if self.strides[-1] != output_stride:
            say_native(name, output_stride, self.strides[-1])
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.net.eval()
        self.sizes = find_sizes(self._maps, name, self.channels, self.strides, in_channels)
        # In a sequence of stages every level leads to the last one; other networks may have branches.
        self._branches = not isinstance(self.net, FeatureListNet) and self._has_branches()
        self.net.train()

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> four maps (N, channels[i], h, w) on grids of H / strides[i] by W / strides[i] cells."""
        maps = self._maps(self.sizes.fit(image))
        if self._branches and self.training:
            # DistributedDataParallel waits for a gradient of every parameter, also where the head reads one level.
            maps[-1] = maps[-1] + 0.0 * torch.stack([m.mean() for m in maps[:-1]]).sum()
        return maps

    def _maps(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.net(image)[-STAGES:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else list(maps)

    def _has_branches(self) -> bool:
        """Tell whether some parameters miss the last level; those that miss every level are not trained."""
        maps = self._maps(torch.zeros(1, self.in_channels, *EVEN))
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        to_last = torch.autograd.grad(maps[-1].sum(), parameters, allow_unused=True, retain_graph=True)
        to_any = torch.autograd.grad(
            torch.stack([m.sum() for m in maps]).sum(), parameters, allow_unused=True, retain_graph=False
        )
        for parameter, gradient in zip(parameters, to_any, strict=True):
            parameter.requires_grad_(gradient is not None)
        return any(last is None and some is not None for last, some in zip(to_last, to_any, strict=True))


def adapted(source: nn.Module, wide: nn.Module, name: str, in_channels: int) -> nn.Module:
    """Give a network of `in_channels` the weights of the same network of three, and return it.

    The weights of the convolution that sees the image are summed over the channels for one, and else repeated in turn
    (R, G, B, R, ...) and scaled by 3 / in_channels, so that the sums stay alike: timm's rule for `in_chans`.

    Raises:
        ConfigError: if more than the width of its first convolution is another one.
    """
    state, expected = source.state_dict(), wide.state_dict()
    for key in [key for key, value in state.items() if value.shape != expected[key].shape]:
        try:
            state[key] = adapt_input_conv(in_channels, state[key])
        except (NotImplementedError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"the ImageNet weights of '{name}' can't be adapted to images of {in_channels} channels ({key}: "
                f"{error}); use student.pretrained=false"
            ) from error
    wide.load_state_dict(state)
    return wide


def check_stride(output_stride: int) -> None:
    """Refuse what is no stride of segmentation.

    Raises:
        ConfigError: if it is none of 8, 16 and 32.
    """
    if output_stride not in STRIDES:
        raise ConfigError(f"output_stride must be 8, 16 or 32, got {output_stride}")


@functools.cache
def say_native(name: str, asked: int, native: int) -> None:
    """Log, once for each network, that it has another stride than the one asked for."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0):
        logging.getLogger(__name__).warning(
            "backbone '%s' has no dilated form: its stride is %d, not output_stride=%d", name, native, asked
        )


def _create(name: str, output_stride: int, options: dict[str, Any], overlay: dict[str, Any] | None) -> nn.Module:
    """Build the network, of its native stride if it can't be dilated."""
    create = functools.partial(
        timm.create_model,
        name,
        features_only=True,
        pretrained=overlay is not None,
        pretrained_cfg_overlay=overlay,
        **options,
    )
    try:
        # timm tells of the classifier's weights in a file, which no backbone has; what a file lacks is refused later.
        with quiet("timm"):
            try:
                net: nn.Module = create(output_stride=output_stride)
            except UNDILATED:
                net = create()  # refuses, by its own reason, what was not the stride's fault
    except REFUSALS as error:
        reason = str(error) or type(error).__name__
        if overlay is not None and isinstance(error, RuntimeError | AttributeError):
            raise CheckpointError(f"the ImageNet weights do not fit '{name}' with {options}: {reason}") from error
        raise ConfigError(f"timm cannot build '{name}' with output_stride {output_stride}: {reason}") from error
    return net
