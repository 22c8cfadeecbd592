"""timm backbones, dilated to the output stride of segmentation."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError, suggest
from idd_seg.models.weights import read_weights

STAGES = 4


class Backbone(nn.Module):
    """The last four feature levels of a timm network.

    Args:
        name: a timm model, e.g. `resnet18`.
        output_stride: 8 or 16 where the network has a dilated form.
        options: further arguments of the timm model, e.g. `stem_type`, `stem_width`, `channels`.
        pretrained: take ImageNet weights from timm's cache or hub.
        weights: a local file of weights in timm's naming (safetensors, or a PyTorch state dict), instead of
        `pretrained`.

    Attributes:
        channels: widths of the four levels, asked of the network.
        strides: their strides relative to the image.

    Raises:
        ConfigError: for an unknown name, stride or option.
        CheckpointError: if weights are asked for and can't be had.
    """

    def __init__(
        self,
        name: str,
        output_stride: int = 8,
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ConfigError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        # With a tag of its weights, as in resnet18.a1_in1k, or without.
        known = timm.list_models(pretrained="." in name)
        if name not in known:
            raise ConfigError(f"backbone '{name}' is not a timm model{suggest(name, known)}")
        overlay = _pretrained_overlay(name, pretrained, weights)
        try:
            self.net = timm.create_model(
                name,
                features_only=True,
                output_stride=output_stride,
                pretrained=overlay is not None,
                pretrained_cfg_overlay=overlay,
                **(options or {}),
            )
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
            reason = str(error) or type(error).__name__
            if overlay is not None and isinstance(error, RuntimeError | AttributeError):
                raise CheckpointError(
                    f"the ImageNet weights do not fit '{name}' with {dict(options or {})}: {reason}"
                ) from error
            raise ConfigError(f"timm cannot build '{name}' with output_stride {output_stride}: {reason}") from error
        if overlay is not None and "file" in overlay:
            _refuse_missing(self.net, overlay["file"], name)
        info: Any = self.net.feature_info
        self.channels: list[int] = info.channels()[-STAGES:]
        self.strides: list[int] = info.reduction()[-STAGES:]
        if len(self.channels) < STAGES:
            raise ConfigError(f"backbone '{name}' has {len(self.channels)} feature levels, {STAGES} are needed")

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps (N, channels[i], H / strides[i], W / strides[i])."""
        maps: list[Tensor] = self.net(image)
        return maps[-STAGES:]


def _pretrained_overlay(name: str, pretrained: bool, weights: str | None) -> dict[str, Any] | None:
    """Say where timm is to load from; None means random weights."""
    if weights is not None:
        read_weights(weights)  # refuses what is missing, damaged or hostile, with its own message
        return {"file": str(Path(weights).expanduser())}
    if not pretrained:
        return None
    cached = _cached_weights(name)
    if cached is not None:
        return {"file": cached}
    if not _hub_answers():
        raise CheckpointError(
            f"no ImageNet weights for backbone '{name}': they are not in the local cache and the hub can't be reached; "
            f"give a file with student.weights=PATH, or train from scratch with pretrained=false"
        )
    return {}


def _refuse_missing(net: nn.Module, path: str, name: str) -> None:
    """timm leaves layers that a file does not have at random, with a line in the log."""
    from timm.models import load_state_dict

    held = {key.replace(".", "_") for key in load_state_dict(path)}
    missing = [
        key
        for key in net.state_dict()
        if key.replace(".", "_") not in held and not key.endswith(".num_batches_tracked")
    ]
    if missing:
        raise CheckpointError(
            f"'{path}' does not fit '{name}': {len(missing)} of its tensors are missing, the first is {missing[0]}"
        )


def _cached_weights(name: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise CheckpointError(
            f"timm has no ImageNet weights for '{name}'; use student.weights=PATH or pretrained=false"
        )
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(cfg.hf_hub_id, file) if cfg.hf_hub_id else None
        if isinstance(found, str):
            return found
    return None


def _hub_answers(seconds: float = 1.5) -> bool:
    """Tell whether the hub (or the proxy in front of it) takes a connection: its own client would retry for 47 s."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = urlsplit(constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not urllib.request.proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with socket.create_connection((url.hostname or "", port), timeout=seconds):
            return True
    except OSError:
        return False
