"""From a configuration that has been looked at to the parts of a run. Nothing behind this sees the configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from idd_seg.callbacks.atomic_checkpoint_io import AtomicCheckpointIO
from idd_seg.callbacks.checkpoint import LAST
from idd_seg.callbacks.graceful_stop import GracefulStop
from idd_seg.callbacks.resume_metrics import ResumeMetrics
from idd_seg.callbacks.wall_clock import WallClock
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.checkpoints.start import start_from
from idd_seg.config.instantiate import make, make_data, make_student, make_terms, plain
from idd_seg.config.option_roles import NOT_IN_A_PICTURE, NOT_IN_AN_OUTPUT, as_before, without
from idd_seg.config.preflight import Checked, begins, parts_of
from idd_seg.config.ranges import duration
from idd_seg.config.teacher import load_teacher
from idd_seg.config.teacher_plan import needing
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.labels import with_table
from idd_seg.distillation.label_use import LabelUse
from idd_seg.distillation.module import Distiller
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.distillation.teacher_cache import TeacherCache
from idd_seg.distillation.teacher_times import teacher_times
from idd_seg.distillation.term_checks import bind_classes
from idd_seg.distributed.environment import RankInfo
from idd_seg.distributed.process_group import Joined
from idd_seg.distributed.sync_batch_norm import synchronise
from idd_seg.losses.term import Term
from idd_seg.models.freeze import freeze
from idd_seg.models.given import Given
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.speed import Speed
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.ops.quiet import quieten
from idd_seg.runs.allocator import keep_freed_memory

OURS = ("timeout_minutes", "sync_batchnorm", "max_time")  # of `trainer`: options that are no Lightning Trainer's


@dataclass(frozen=True)
class Run:
    """The parts of a run, and what its folder is called."""

    module: Distiller
    data: SegmentationDataModule
    trainer: L.Trainer
    stop: GracefulStop
    clock: WallClock
    folder: Path
    name: str

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.folder / "checkpoints" / f"{LAST}.ckpt"


def assemble(cfg: DictConfig, checked: Checked | None = None, rank_info: RankInfo | None = None) -> Run:
    """Build the parts of the run that `cfg` describes.

    Args:
        cfg: `teacher.checkpoint` names a file, if a term needs a teacher.
        checked: what the look at the configuration has made; None in a process for which another one has looked.
        rank_info: of this process, in the group that has been joined; None without a group.
    """
    quieten()
    if not torch.cuda.is_available():
        keep_freed_memory()
    data = make_data(cfg, typed=False) if checked is None else checked.data
    terms = make_terms(cfg.loss, typed=False) if checked is None else checked.terms
    bind_classes(terms, data)
    teacher = None if checked is None else checked.teacher
    if teacher is None and needing(terms):
        teacher = load_teacher(cfg.teacher.checkpoint, cfg, data, aloud=checked is not None)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = _distiller(cfg, data, terms, teacher, None if checked is None else checked.student)
    speed: Speed = _make(cfg.speed, "speed")
    speed.set_up()
    speed.prepare(module.student, teacher, _device(cfg))
    if rank_info is not None and cfg.trainer.get("sync_batchnorm"):
        synchronise(module.student)
        synchronise(module.terms)
    stop, clock = GracefulStop(cfg.trainer.timeout_minutes, duration(cfg.trainer.get("max_time"))), WallClock()
    limit = data.judge_part(cfg.trainer.limit_val_batches)
    quantisation = [] if cfg.quantize is None else [_make(cfg.quantize, "quantize")]
    trainer = _trainer(cfg, rank_info, [stop, clock, ResumeMetrics(), *quantisation], limit)
    return Run(module, data, trainer, stop, clock, Path(cfg.run_dir), cfg.name)


def _make(node: Any, where: str, **extra: Any) -> Any:
    return make(node, where, typed=False, **extra)


def _distiller(
    cfg: DictConfig,
    data: SegmentationDataModule,
    terms: dict[str, Term],
    teacher: FrozenTeacher | None,
    given: Given | None,
) -> Distiller:
    # The student comes first after seeding: a distilled student and its twin start from the same weights.
    student = _student(cfg, data) if given is None else given
    metadata = {
        "class_names": data.class_names,
        "config": {group: plain(cfg[group]) for group in ("student", "data", "loss")},
        "name": cfg.name,
        "seed": cfg.seed,
    }
    return Distiller(
        student,
        teacher,
        terms,
        _make(cfg.optimizer, "optimizer"),
        _make(cfg.scheduler, "scheduler", total_iters=cfg.trainer.max_steps),
        ignore_index=data.ignore_index,
        measure_batches=cfg.measure_batches,
        seed=cfg.seed,
        metadata=metadata,
        balance=None if cfg.balance is None else _make(cfg.balance, "balance"),
        guard=NonFiniteGuard(cfg.skip_non_finite),
        label_use=LabelUse(data.teacher_labels, data.ignore_index, unlabelled=bool(data.without)),
        teacher_times=teacher_times(cfg.teacher),
        teacher_cache=None if cfg.teacher_cache is None or teacher is None else cache_of(cfg, data, terms, teacher),
    )


def _student(cfg: DictConfig, data: SegmentationDataModule) -> Segmenter:
    student = make_student(cfg, typed=False)
    if begins(cfg):
        data.say(start_from(student, read_checkpoint(cfg.init_from), data.class_names))
    freeze(student, parts_of(cfg))
    return student


def cache_of(
    cfg: DictConfig, data: SegmentationDataModule, terms: dict[str, Term], teacher: FrozenTeacher
) -> TeacherCache:
    """Build the cache of the teacher's outputs, under a name for all that a picture and an output depend on."""
    cache: TeacherCache = _make(cfg.teacher_cache, "teacher_cache")
    labelled, more = data.dataset("train").source, data.unlabelled_source()
    identity = {
        "teacher": {**teacher.source, **as_before(without(plain(cfg.teacher), NOT_IN_AN_OUTPUT), "teacher")},
        "data": with_table(without(plain(cfg.data), NOT_IN_A_PICTURE)),
        "pictures": [labelled.key(index) for index in range(len(labelled))],
        "speed": plain(cfg.speed),
        "precision": cfg.trainer.precision,
    }
    if more is not None:
        # A million of them are not kept as texts.
        digest = hashlib.sha256()
        for index in range(len(more)):
            digest.update(f"{more.key(index)}\0".encode("utf-8", "surrogateescape"))
        identity["unlabelled"] = digest.hexdigest()
    cache.bind(identity, data.shown().views, [name for term in terms.values() for name in term.teacher_maps])
    return cache


def _trainer(
    cfg: DictConfig, rank_info: RankInfo | None, callbacks: Sequence[L.Callback], limit_val_batches: int | float
) -> L.Trainer:
    """Build Lightning's trainer, with these callbacks before those of the configuration."""
    trainer: L.Trainer = _make(
        _trainer_options(cfg, rank_info),
        "trainer",
        logger=[_make(node, f"logger.{name}") for name, node in cfg.logger.items()],
        callbacks=[*callbacks, *(_make(node, f"callbacks.{name}") for name, node in cfg.callbacks.items())],
        # Lightning would take a SLURM allocation, in which this may run alone, for a group.
        plugins=[
            AtomicCheckpointIO(f"{LAST}.ckpt"),
            LightningEnvironment() if rank_info is None else Joined(rank_info),
        ],
        default_root_dir=cfg.run_dir,
        limit_val_batches=limit_val_batches,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,  # callbacks.progress shows steps, Lightning's own the batches of an epoch
    )
    return trainer


def _trainer_options(cfg: DictConfig, rank_info: RankInfo | None) -> DictConfig:
    """Leave what is ours out of the trainer's options; several processes train by DDP."""
    node = OmegaConf.create(without(plain(cfg.trainer), OURS))
    if isinstance(node.val_check_interval, int):
        # Lightning counts batches; ours are optimizer steps, as everything else.
        node.val_check_interval *= node.accumulate_grad_batches
    if rank_info is None:
        node.strategy = "auto"
    elif node.strategy == "auto":
        node.strategy = "ddp"
    return node


def _device(cfg: DictConfig) -> torch.device:
    """Return the kind of device that the trainer will choose."""
    on_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
