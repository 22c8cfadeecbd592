"""From a configuration to the parts of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from idd_seg.config import instantiate
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.distillation.module import Distiller
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.distillation.teacher_cache import TeacherCache
from idd_seg.distributed.environment import Place
from idd_seg.losses.term import Term
from idd_seg.models.teacher import FrozenTeacher


def device_of(cfg: DictConfig) -> torch.device:
    """Return the kind of device that the trainer will choose."""
    on_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def trainer_options(cfg: DictConfig, place: Place | None) -> DictConfig:
    """Leave what is ours out of the trainer's options; several processes train by DDP."""
    options = [k for k in cfg.trainer if k not in ("timeout_minutes", "sync_batchnorm")]
    node = OmegaConf.create(OmegaConf.masked_copy(cfg.trainer, options), parent=cfg)
    if isinstance(node.val_check_interval, int):
        # Lightning counts batches; ours are optimizer steps, as everything else.
        node.val_check_interval *= node.accumulate_grad_batches
    if place is None:
        node.strategy = "auto"
    elif node.strategy == "auto":
        node.strategy = "ddp"
    return node


def make_distiller(
    cfg: DictConfig, data: SegmentationDataModule, terms: dict[str, Term], teacher: FrozenTeacher | None
) -> Distiller:
    # The student comes first after seeding: a distilled student and its twin start from the same weights.
    student = instantiate.make_student(cfg)
    card = {
        "class_names": data.class_names,
        "config": {group: OmegaConf.to_container(cfg[group], resolve=True) for group in ("student", "data", "loss")},
        "name": cfg.name,
        "seed": cfg.seed,
    }
    return Distiller(
        student,
        teacher,
        terms,
        instantiate.make(cfg.optimizer, "optimizer"),
        instantiate.make(cfg.scheduler, "scheduler", total_iters=cfg.trainer.max_steps),
        data.ignore_index,
        cfg.measure_batches,
        cfg.seed,
        card,
        None if cfg.balance is None else instantiate.make(cfg.balance, "balance"),
        NonFiniteGuard(cfg.skip_non_finite),
        None if cfg.teacher_cache is None or teacher is None else _teacher_cache(cfg, data, terms, teacher),
    )


def _teacher_cache(
    cfg: DictConfig, data: SegmentationDataModule, terms: dict[str, Term], teacher: FrozenTeacher
) -> TeacherCache:
    cache: TeacherCache = instantiate.make(cfg.teacher_cache, "teacher_cache")
    # What a picture and an output depend on; how they are loaded changes neither.
    loading = ("batch_size", "eval_batch_size", "num_workers", "cache", "cache_dir", "recipe", "counts", "timeout_s")
    pictures = data.dataset("train")
    identity = {
        "teacher": {**teacher.source, **_but(cfg.teacher, ("name", "checkpoint", "training"))},
        "data": _but(cfg.data, loading),
        "pictures": [pictures.source.key(index) for index in range(len(pictures))],
        "speed": OmegaConf.to_container(cfg.speed, resolve=True),
        "precision": cfg.trainer.precision,
    }
    cache.bind(identity, pictures.views, [name for term in terms.values() for name in term.teacher_maps])
    return cache


def _but(node: DictConfig, left_out: Sequence[str]) -> dict[str, Any]:
    """Return a node as plain values, without some of its keys."""
    return {str(k): v for k, v in OmegaConf.to_container(node, resolve=True).items() if k not in left_out}  # type: ignore[union-attr]
