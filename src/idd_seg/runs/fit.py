"""One training run, from its configuration to its folder."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from idd_seg.callbacks.atomic_checkpoint_io import AtomicCheckpointIO
from idd_seg.callbacks.checkpoint import BEST, LAST, save_finally
from idd_seg.callbacks.graceful_stop import GracefulStop
from idd_seg.callbacks.wall_clock import WallClock
from idd_seg.checkpoints.reader import Saved, latest_whole, previous_of
from idd_seg.config import instantiate
from idd_seg.config import teacher as teacher_config
from idd_seg.config.preflight import checked_data, needing
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.worker_errors import explained
from idd_seg.distillation.module import Distiller
from idd_seg.distributed.environment import Place
from idd_seg.distributed.process_group import Joined
from idd_seg.distributed.sync_batch_norm import synchronise
from idd_seg.distributed.timeouts import ranks_explained
from idd_seg.errors import CheckpointError
from idd_seg.loggers.factory import close_wandb
from idd_seg.models.segmenter import count_parameters
from idd_seg.models.speed import Speed
from idd_seg.ops.quiet import quieten
from idd_seg.plotting.tables import class_table
from idd_seg.runs.allocator import keep_freed_memory
from idd_seg.runs.assemble import device_of, make_distiller, trainer_options
from idd_seg.runs.provenance import write_json


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
    terms = instantiate.make_terms(cfg.loss)
    teacher = teacher_config.load_teacher(cfg.teacher.checkpoint, cfg, data) if needing(terms) else None
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module = make_distiller(cfg, data, terms, teacher)
    speed: Speed = instantiate.make(cfg.speed, "speed")
    speed.set_up()
    speed.prepare(module.student, teacher, device_of(cfg))
    if place is not None and cfg.trainer.get("sync_batchnorm"):
        synchronise(module.student)
        synchronise(module.terms)
    interruption = GracefulStop(cfg.trainer.timeout_minutes)
    clock = WallClock()
    callbacks = [
        interruption,
        clock,
        *(instantiate.make(node, f"callbacks.{name}") for name, node in cfg.callbacks.items()),
    ]
    trainer = instantiate.make(
        trainer_options(cfg, place),
        "trainer",
        logger=[instantiate.make(node, f"logger.{name}") for name, node in cfg.logger.items()],
        callbacks=callbacks,
        # Lightning would take a SLURM allocation, in which this may run alone, for a group.
        plugins=[AtomicCheckpointIO(f"{LAST}.ckpt"), LightningEnvironment() if place is None else Joined(place)],
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


def _fit(
    trainer: L.Trainer, module: Distiller, data: SegmentationDataModule, last: Path, interruption: GracefulStop
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
