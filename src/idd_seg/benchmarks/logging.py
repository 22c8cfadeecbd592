"""What W&B costs a training: seconds inside wandb and the dashboard, against the rest of the same run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

from idd_seg.benchmarks.rows import Row

BAR = 0.01
OPTIONS = ("data=shapes", "loss=ce", "logger=wandb", "logger.wandb.mode=offline", "name=shapes", "pretrained=false")


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Train the small student for 250 steps on generated scenes, with W&B offline, and time what is not training."""
    from idd_seg.loggers.wandb_run import WandbRun
    from idd_seg.runs.run import run as train

    steps = "trainer.max_steps=250"
    with tempfile.TemporaryDirectory() as folder:
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        places = (f"run_dir={folder}", f"trainer.accelerator={accelerator}")
        before = dict(WandbRun.seconds)
        train(hydra.compose("train", [*OPTIONS, steps, *places]))
        spent = {name: seconds - before[name] for name, seconds in WandbRun.seconds.items()}
        total = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))["seconds"]
    rest = total - sum(spent.values())
    against = f"training: {rest:.1f} s"
    return [
        Row(
            "W&B offline, curves and dashboard",
            f"{spent['logging']:.3f} s",
            against,
            spent["logging"] / rest,
            "less",
            BAR,
        ),
        Row(
            "W&B offline, opened and closed once", f"{spent['opening']:.3f} s", against, spent["opening"] / rest, "less"
        ),
    ]
