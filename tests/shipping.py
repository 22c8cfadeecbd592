"""A small student as a run leaves it, for what is done with checkpoints afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from idd_seg.checkpoints.reader import FORMAT, KEY
from idd_seg.config import instantiate
from idd_seg.models.segmenter import Segmenter
from tests.data.layouts import compose

SMALL = ("data.size=[32,32]", "data.train_length=8", "data.val_length=4")


def settle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give BatchNorms statistics as after a training: with fresh ones folding would have nothing to do."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape  # type: ignore[union-attr]
            module.running_mean.copy_(0.2 * torch.randn(shape, generator=generator))  # type: ignore[union-attr]
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))  # type: ignore[union-attr]
    return network.eval()


def save_run(folder: Path, *overrides: str, name: str = "best") -> Path:
    """Write `checkpoints/<name>.ckpt`, `metrics.json` and `run.json` of a student with random weights."""
    generated = not any(override.startswith("data=") for override in overrides)
    cfg = compose(*(SMALL if generated else ()), "loss=ce", *overrides)
    torch.manual_seed(1)
    network = instantiate.make_student(cfg)
    assert isinstance(network, Segmenter)
    settle(network)
    groups: dict[str, Any] = {g: OmegaConf.to_container(cfg[g], resolve=True) for g in ("student", "data", "loss")}
    card = {
        "format": FORMAT,
        "class_names": groups["data"]["class_names"],
        "config": groups,
        "name": "a run",
        "seed": 7,
        "teacher": {"path": "/home/somebody/teacher/last.ckpt", "sha256": "ab12"},
    }
    state = {f"student.{key}": value for key, value in network.state_dict().items()}
    path = folder / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({KEY: card, "state_dict": state}, path)
    iou = dict.fromkeys(groups["data"]["class_names"], 0.25)
    scores = {"step": 30, "miou": 0.25, "pixel_accuracy": 0.5, "iou": iou}
    (folder / "metrics.json").write_text(json.dumps({"split": "val", "best": scores, "last": scores}))
    (folder / "run.json").write_text(
        json.dumps({"git": {"commit": "c0ffee", "changed": False}, "versions": {"torch": "9"}})
    )
    return path
