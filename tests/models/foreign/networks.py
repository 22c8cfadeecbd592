"""Small networks of each kind, with random weights and statistics, and the files they would come in."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.models.foreign.cirkd import CIRKD
from idd_seg.models.foreign.input import InputFormat
from idd_seg.models.foreign.mmseg import MMSeg
from idd_seg.models.foreign.mmseg_heads import ASPPHead, PSPHead, SeparableASPPHead

HEADS = {"psp": PSPHead, "aspp": ASPPHead, "plus": SeparableASPPHead}
CLASSES = 5


def plain_input(**changes: Any) -> InputFormat:
    """An input format that changes nothing."""
    usual = {"mean": [0.0] * 3, "std": [1.0] * 3, "data_mean": [0.0] * 3, "data_std": [1.0] * 3}
    return InputFormat(**{**usual, **changes})


def cirkd(head: str, num_classes: int | None = CLASSES, depth: int = 18, **changes: Any) -> CIRKD:
    small = {"base": 8, "width": 16, **changes}
    return CIRKD(num_classes, plain_input(), head, depth, **small)


def mmseg(head: str, num_classes: int | None = CLASSES, depth: int = 18, **changes: Any) -> MMSeg:
    small = {"base": 8, "width": 16, **changes}
    return MMSeg(num_classes, plain_input(), functools.partial(HEADS[head]), depth, **small)


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network random weights, and its BatchNorms random statistics, so that no two tensors are alike."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(noise.abs() + 0.5)
        elif value.ndim > 1:
            value.copy_(noise * (1.0 / max(1, value[0].numel())) ** 0.5)
        else:
            value.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return network.eval()


def image(*size: int, seed: int = 1) -> Tensor:
    """A batch of two random pictures."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def save(network: nn.Module, path: Path) -> Path:
    """Write a network's state, with random weights, as training programs do."""
    torch.save({"state_dict": randomise(network).state_dict(), "epoch": 7}, path)
    return path


def labelled(kind: Any, config: Any, classes: int = CLASSES) -> Any:
    """Build a network of transformers with random weights and labels `class 0`, `class 1`, ..."""
    config.id2label = {i: f"class {i}" for i in range(classes)}
    config.label2id = {name: i for i, name in config.id2label.items()}
    torch.manual_seed(0)
    return randomise(kind(config))


def segformer(classes: int = CLASSES) -> Any:
    """A small SegFormer of transformers, which a plain test need not import."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=12
    )
    return labelled(SegformerForSemanticSegmentation, config, classes)
