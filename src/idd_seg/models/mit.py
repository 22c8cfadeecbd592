"""The Mix Transformer: SegFormer's backbone.

E. Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021.
Modules are named as in the published weights, so that these need no other library to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.backbone import Levels, check_stride, say_native
from idd_seg.models.mit_block import Block, Patches, as_map, as_tokens
from idd_seg.models.pretrained import hub
from idd_seg.models.pretrained.imagenet import no_weights
from idd_seg.models.pretrained.weights import read_weights
from idd_seg.models.sizes import Sizes

STRIDES = [4, 8, 16, 32]
FIRST = "encoder.patch_embeddings.0.proj.weight"


class MixTransformer(Levels):
    """Four levels of strides 4, 8, 16 and 32; B0 by default.

    Args:
        output_stride: its stride is 32; for another one, this is logged once.
        options: none; it has arguments of its own.
        pretrained: take ImageNet weights of the repository `hub_id` from the local cache or the hub.
        weights: a local file of weights in that naming, or a folder with such a file, instead of `pretrained`.
        in_channels: of the images; weights of three are adapted as timm adapts its networks'.
        name: in messages.
        hub_id: a repository with weights in the naming of SegFormer's publication.
        widths, depths, heads: of the four levels: channels, blocks, heads of attention.
        reductions: each level attends to means of so many positions squared.
        ratio: width of the feed-forward layers, relative to their level.
        drop_path: share of the last block's outputs that are left out in training; of earlier ones linearly less.

    Raises:
        ConfigError: for a refused option.
        CheckpointError: if weights are asked for and can't be had, or are of another network.
    """

    def __init__(
        self,
        output_stride: int = 32,
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        in_channels: int = 3,
        *,
        name: str = "mit_b0",
        hub_id: str = "nvidia/mit-b0",
        widths: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        ratio: int = 4,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        check_stride(output_stride)
        if options:
            raise ConfigError(f"backbone '{name}' takes no options; it has student.backbone.widths and others")
        if not all(len(each) == len(STRIDES) for each in (widths, depths, heads, reductions)):
            raise ConfigError(
                f"backbone '{name}' has {len(STRIDES)} levels: widths, depths, heads and reductions of each"
            )
        if output_stride != STRIDES[-1]:
            say_native(name, output_stride, STRIDES[-1])
        self.channels, self.strides = list(widths), list(STRIDES)
        self.sizes = Sizes(least=STRIDES[-1])  # the means of the first level are over 8 x 8 positions of stride 4
        drops = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleDict(
            {
                "patch_embeddings": nn.ModuleList(
                    Patches(inputs[i], widths[i], 4 if i == 0 else 2) for i in range(len(STRIDES))
                ),
                "block": nn.ModuleList(
                    nn.ModuleList(
                        Block(widths[i], heads[i], reductions[i], ratio, next(drops)) for _ in range(depths[i])
                    )
                    for i in range(len(STRIDES))
                ),
                "layer_norm": nn.ModuleList(nn.LayerNorm(width) for width in widths),
            }
        )
        self.apply(_initialise)
        path = _weight_file(name, hub_id, pretrained, weights)
        if path is not None:
            _load(self, path, name)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> four maps (N, channels[i], H / strides[i], W / strides[i]), rounded up."""
        x, maps = self.sizes.fit(image), []
        parts: list[Any] = [self.encoder[part] for part in ("patch_embeddings", "block", "layer_norm")]
        for patches, blocks, norm in zip(*parts, strict=True):
            x = patches(x)
            tokens = as_tokens(x)
            for block in blocks:
                tokens = block(tokens, x)
            x = as_map(norm(tokens), x)
            maps.append(x)
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _weight_file(name: str, hub_id: str, pretrained: bool, weights: str | None) -> str | None:
    if weights is not None:
        folder = Path(weights).expanduser()
        inside = [folder / file for file in hub.FILES if (folder / file).is_file()]
        return str(inside[0]) if inside else weights
    if not pretrained:
        return None
    path = hub.cached(hub_id) or (hub.download(hub_id) if hub.answers() else None)
    if path is None:
        raise no_weights(name)
    return path


def _load(network: nn.Module, path: str, name: str) -> None:
    """Load a file whose names may begin by `segformer.`; what belongs to a classifier is passed over."""
    held = {str(key).removeprefix("segformer."): value for key, value in read_weights(path).items()}
    expected = network.state_dict()
    first = held.get(FIRST)
    if isinstance(first, Tensor) and first.dim() == 4 and first.shape[1] == 3:
        held[FIRST] = adapt_input_conv(expected[FIRST].shape[1], first)
    wrong = [
        key
        for key, value in expected.items()
        if not isinstance(held.get(key), Tensor) or held[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(
            f"'{path}' does not fit '{name}': {len(wrong)} of its tensors are missing or of another shape, "
            f"the first is {wrong[0]}"
        )
    network.load_state_dict({key: held[key] for key in expected})
