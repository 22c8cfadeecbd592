"""One training run, from its configuration to its folder."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from idd_seg import build
from idd_seg.allocator import keep_freed_memory
from idd_seg.callbacks.checkpoint import BEST, LAST, save_finally
from idd_seg.callbacks.clock import Clock
from idd_seg.callbacks.interruption import Interruption
from idd_seg.callbacks.whole_files import WholeFiles
from idd_seg.checkpoint import Saved, latest_whole, previous_of
from idd_seg.checks import checked_data, needing
from idd_seg.data.base import SegmentationDataModule
from idd_seg.data.trouble import explained
from idd_seg.errors import CheckpointError
from idd_seg.group import Joined
from idd_seg.guard import NonFiniteGuard
from idd_seg.loggers import close_wandb
from idd_seg.losses.term import Term
from idd_seg.lost_rank import ranks_explained
from idd_seg.models.segmenter import count_parameters
from idd_seg.models.speed import Speed
from idd_seg.models.sync_norm import synchronise
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.module import Distiller
from idd_seg.place import Place
from idd_seg.quiet import quieten
from idd_seg.run_folder import write_json
from idd_seg.tables import class_table
from idd_seg.teacher_cache import TeacherCache


def train(cfg: DictConfig, place: Place | None = None) -> float:
    """Train as `cfg` says and fill the run folder `cfg.run_dir`; return the best mIoU on held-out images.

    Args:
        cfg: `teacher.checkpoint` names a file, if a term needs a teacher.
        place: this process's, in the group that has been joined; None without a group.

    Raises:
        UserError: for whatever is wrong with configuration, data or files, before the first step where it can be known.
    """
    quieten()
    if not torch.cuda.is_available():
        keep_freed_memory()
    data = checked_data(cfg)
    terms = build.make_terms(cfg.loss)
    teacher = build.load_teacher(cfg.teacher.checkpoint, cfg, data) if needing(terms) else None
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = _distiller(cfg, data, terms, teacher)
    speed: Speed = build.make(cfg.speed, "speed")
    speed.set_up()
    speed.prepare(module.student, teacher, _device(cfg))
    if place is not None and cfg.trainer.get("sync_batchnorm"):
        synchronise(module.student)
        synchronise(module.terms)
    interruption = Interruption(cfg.trainer.timeout_minutes)
    clock = Clock()
    callbacks = [interruption, clock, *(build.make(node, f"callbacks.{name}") for name, node in cfg.callbacks.items())]
    trainer = build.make(
        _trainer_node(cfg, place),
        "trainer",
        logger=[build.make(node, f"logger.{name}") for name, node in cfg.logger.items()],
        callbacks=callbacks,
        # Lightning would take a SLURM allocation, in which this may run alone, for a group.
        plugins=[WholeFiles(f"{LAST}.ckpt"), LightningEnvironment() if place is None else Joined(place)],
        default_root_dir=cfg.run_dir,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,  # callbacks.progress shows steps, Lightning's own the batches of an epoch
    )
    try:
        _fit(trainer, module, data, Path(cfg.run_dir) / "checkpoints" / f"{LAST}.ckpt", interruption)
        _validate_the_end(trainer, module, data, Path(cfg.run_dir))
    finally:
        if (folder := close_wandb()) and trainer.is_global_zero:
            print(f"wandb: offline; to upload: wandb sync {folder}")
    return _finish(cfg, module, data, clock.seconds)


def _device(cfg: DictConfig) -> torch.device:
    """Return the kind of device that the trainer will choose."""
    on_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def _trainer_node(cfg: DictConfig, place: Place | None) -> DictConfig:
    """Leave what is ours out of the trainer's options; several processes train by DDP."""
    node = OmegaConf.masked_copy(
        cfg.trainer, [k for k in cfg.trainer if k not in ("timeout_minutes", "sync_batchnorm")]
    )
    node._set_parent(cfg)
    if isinstance(node.val_check_interval, int):
        # Lightning counts batches; ours are optimizer steps, as everything else.
        node.val_check_interval *= node.accumulate_grad_batches
    if place is None:
        node.strategy = "auto"
    elif node.strategy == "auto":
        node.strategy = "ddp"
    return node


def _fit(
    trainer: L.Trainer, module: Distiller, data: SegmentationDataModule, last: Path, interruption: Interruption
) -> None:
    """Train, from the checkpoint `last` on if it is there, or from the one before it if that is damaged.

    Raises:
        KeyboardInterrupt, SystemExit: after a signal; Lightning ends the process by itself at ctrl-C, where a sweep or
            a lock must see the interruption.
        CheckpointError: if checkpoints are there and none can be used, or if they belong to another teacher.
        DataError: for loader processes that were killed.
        LostRankError: if another process of the run does not come to where this one waits.
    """
    # Read by our own reader first: it says what is wrong with a file in words of the user.
    saved = latest_whole(last)
    if saved is not None:
        _refuse_another_teacher(saved, module)
        if trainer.is_global_zero:
            print(f"going on from {saved.path}")
    try:
        with explained(), ranks_explained(trainer.world_size):
            trainer.fit(module, datamodule=data, ckpt_path=None if saved is None else saved.path)
    except SIGTERMException:
        if interruption.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + (interruption.number or signal.SIGTERM)) from None
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        interruption.release(trainer)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _refuse_another_teacher(saved: Saved, module: Distiller) -> None:
    before = saved.card.get("teacher") or {}
    now = {} if module.teacher is None else module.teacher.source
    if before.get("sha256") != now.get("sha256"):
        raise CheckpointError(
            f"'{saved.path}' was distilled from '{before.get('path')}', and the file that is there now, "
            f"'{now.get('path')}', is another one; put the teacher back, or train anew with resume=never"
        )


def _distiller(
    cfg: DictConfig, data: SegmentationDataModule, terms: dict[str, Term], teacher: FrozenTeacher | None
) -> Distiller:
    # The student comes first after seeding: a distilled student and its twin start from the same weights.
    student = build.make_student(cfg)
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
        build.make(cfg.optimizer, "optimizer"),
        build.make(cfg.scheduler, "scheduler", total_iters=cfg.trainer.max_steps),
        data.ignore_index,
        cfg.measure_batches,
        cfg.seed,
        card,
        None if cfg.balance is None else build.make(cfg.balance, "balance"),
        NonFiniteGuard(cfg.skip_non_finite),
        None if cfg.teacher_cache is None or teacher is None else _teacher_cache(cfg, data, terms, teacher),
    )


def _teacher_cache(
    cfg: DictConfig, data: SegmentationDataModule, terms: dict[str, Term], teacher: FrozenTeacher
) -> TeacherCache:
    cache: TeacherCache = build.make(cfg.teacher_cache, "teacher_cache")
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


def _validate_the_end(trainer: L.Trainer, module: Distiller, data: SegmentationDataModule, run_dir: Path) -> None:
    """Validate and keep the last step, where the interval of validations did not end on it."""
    step = trainer.global_step
    folder = run_dir / "checkpoints"
    if step not in module.validated:
        with explained(), ranks_explained(trainer.world_size):
            trainer.validate(module, datamodule=data, verbose=False)
        for name in [LAST, BEST] if _best_step(module) == step else [LAST]:
            save_finally(trainer, folder / f"{name}.ckpt")
    if trainer.is_global_zero:
        previous_of(folder / f"{LAST}.ckpt").unlink(missing_ok=True)


def _best_step(module: Distiller) -> int:
    """Return the first of the steps with the highest mIoU, as `best.ckpt` has it."""
    return max(module.validated, key=lambda step: module.validated[step].miou)


def _finish(cfg: DictConfig, module: Distiller, data: SegmentationDataModule, seconds: float) -> float:
    """Write `metrics.json` and what the terms keep, and show the classes of the last validation."""
    best_step = _best_step(module)
    last_step = max(module.validated)
    best, last = module.validated[best_step], module.validated[last_step]
    content: dict[str, Any] = {
        "split": data.judged,
        "last": {"step": last_step, **last.as_dict(data.class_names)},
        "best": {"step": best_step, **best.as_dict(data.class_names)},
        "parameters": count_parameters(module.student),
        "seconds": round(seconds, 1),
        "seed": cfg.seed,
        "teacher": None if module.teacher is None else module.teacher.source,
    }
    run_dir = Path(cfg.run_dir)
    if module.trainer.is_global_zero:
        write_json(run_dir / "metrics.json", content)
        for term in module.each_term().values():
            term.keep(run_dir)
        class_table(f"{cfg.name}, {data.judged}, step {last_step}", data.class_names, {"network": last})
        print(f"run folder: {run_dir}")
    return best.miou
