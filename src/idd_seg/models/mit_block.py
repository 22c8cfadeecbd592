"""The layers of the Mix Transformer, which work on maps as lists of positions.

E. Xie et al., "SegFormer: simple and efficient design for semantic segmentation with transformers", NeurIPS 2021.
Modules are named as in the published weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers.drop import DropPath
from torch import Tensor, nn

from idd_seg.errors import ConfigError


class Patches(nn.Module):
    """A strided convolution of overlapping patches: (N, C, H, W) -> (N, width, H / stride, W / stride), normalised."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        kernel = 2 * stride - 1
        self.proj = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(x)
        return as_map(self.layer_norm(as_tokens(y)), y)


class Attention(nn.Module):
    """Attention of all positions to means of `reduction` x `reduction` positions."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"backbone: a level of width {width} can't be shared among {heads} heads")
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.reduced = reduction > 1
        if self.reduced:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.layer_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        """(N, h * w, width) on the grid of `like` -> the same shape."""
        few = self.layer_norm(as_tokens(self.sr(as_map(tokens, like)))) if self.reduced else tokens
        q, k, v = (self._split(part) for part in (self.query(tokens), self.key(few), self.value(few)))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a 3 x 3 convolution of each channel between them, which knows where zeros begin."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        inner = width * ratio
        self.dense1 = nn.Linear(width, inner)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(inner, inner, 3, padding=1, groups=inner)})
        self.dense2 = nn.Linear(inner, width)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        x = self.dwconv["dwconv"](as_map(self.dense1(tokens), like))
        return self.dense2(F.gelu(as_tokens(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each behind a normalisation and beside an identity."""

    def __init__(self, width: int, heads: int, reduction: int, ratio: int, drop: float) -> None:
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(width)
        self.attention = nn.ModuleDict(
            {"self": Attention(width, heads, reduction), "output": nn.ModuleDict({"dense": nn.Linear(width, width)})}
        )
        self.layer_norm_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, ratio)
        self.drop = DropPath(drop)

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        attended = self.attention["self"](self.layer_norm_1(tokens), like)
        tokens = tokens + self.drop(self.attention["output"]["dense"](attended))  # type: ignore[index]
        return tokens + self.drop(self.mlp(self.layer_norm_2(tokens), like))  # type: ignore[no-any-return]


def as_tokens(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, h * w, C) -> (N, C, h, w), of the grid of a map."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *like.shape[-2:])
