"""A Distiller of a configuration, and a short training of it by Lightning: for the suites `step` and `generated`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from idd_seg.benchmarks.bare import networks_of
from idd_seg.benchmarks.stopwatch import Watched
from idd_seg.callbacks.progress import ProgressLines
from idd_seg.callbacks.throughput import Throughput
from idd_seg.config.instantiate import make, make_terms
from idd_seg.loggers.metrics_csv import MetricsFile
from idd_seg.models.speed import Speed
from idd_seg.models.teacher import FrozenTeacher


def module_of(cfg: DictConfig, speed_options: dict[str, Any], device: torch.device, terms_of: Sequence[str]) -> Watched:
    """Build a Distiller of the configuration's networks, with these of its terms."""
    student, network = networks_of(cfg)
    teacher = FrozenTeacher(network)
    chosen = {name: weight for name, weight in cfg.loss.items() if str(name).removesuffix("_weight") in terms_of}
    terms = make_terms(OmegaConf.create(chosen, parent=cfg))
    optimizer = make(cfg.optimizer, "optimizer")
    scheduler = make(cfg.scheduler, "scheduler", total_iters=10_000)
    module = Watched(student, teacher, terms, optimizer, scheduler)
    speed = Speed(**speed_options)
    speed.set_up()
    speed.prepare(student, teacher, device)
    return module


def fit(
    module: Watched,
    data: L.LightningDataModule,
    precision: str,
    device: torch.device,
    beside: L.Callback,
    clip: float | None = None,
) -> None:
    """Train by Lightning, with the callbacks that cost something in a real run, until `beside` ends it.

    Args:
        clip: the largest norm of the gradient, as `trainer.gradient_clip_val`.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=10_000,
            gradient_clip_val=clip,
            logger=MetricsFile(folder),
            callbacks=[Throughput(10), ProgressLines(1e9), beside],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=device.type == "cuda",
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(module, datamodule=data)
