"""Finding the teacher's weights: a file, or a teacher that is trained once and kept."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.data.pipeline.labels import with_table
from idd_seg.errors import ConfigError
from idd_seg.models.foreign.opening import is_foreign

AUTO = "auto"
RECIPE_VERSION = 1  # raised when a change of code makes kept teachers stale
NOT_IN_KEY = (
    *("num_workers", "eval_batch_size", "seed", "val_length", "test_length", "recipe"),
    *("cache", "cache_dir", "counts", "timeout_s"),
)
# Of the student's run: where and how it is computed, and what is seen of it. Nothing that changes what is learnt.
TRAINER = (
    *("_target_", "accelerator", "strategy", "timeout_minutes", "precision", "max_steps", "val_check_interval"),
    *("check_val_every_n_epoch", "log_every_n_steps", "deterministic", "limit_val_batches", "benchmark"),
)
CALLBACKS = ("checkpoint", "last", "throughput", "progress", "sample_gallery", "loss_spike")


def find_teacher(cfg: DictConfig, train: Callable[[DictConfig], Any]) -> str:
    """Return the path of the teacher's checkpoint; with `teacher.checkpoint=auto` train it if it is not kept yet.

    Raises:
        ConfigError: if the teacher has no checkpoint; says how to get one.
    """
    checkpoint = cfg.teacher.checkpoint
    if is_foreign(cfg.teacher):
        return _foreign(cfg.teacher.name, checkpoint)
    if checkpoint == AUTO and cfg.teacher.get("class_map") is not None:
        raise ConfigError(
            "teacher.checkpoint=auto trains a teacher of the data's own classes; leave teacher.class_map out"
        )
    if checkpoint is None:
        name, data = cfg.teacher.name, cfg.data.name
        raise ConfigError(
            f"teacher.checkpoint is not set. Train the teacher: "
            f"python -m idd_seg.train data={data} student={name} teacher=none loss=ce; then give its file with "
            "teacher.checkpoint=PATH. Or teacher.checkpoint=auto trains it now and keeps it"
        )
    return str(checkpoint) if checkpoint != AUTO else str(_kept(cfg, train))


def _foreign(name: str, checkpoint: str | None) -> str:
    if checkpoint == AUTO:
        raise ConfigError(
            f"teacher.checkpoint=auto: teacher={name} was trained elsewhere and can't be trained here; "
            "give its file with teacher.checkpoint=PATH"
        )
    if checkpoint is None:
        raise ConfigError(
            f"teacher.checkpoint is not set. Give the file of teacher={name} with teacher.checkpoint=PATH"
        )
    return str(checkpoint)


def teacher_config(cfg: DictConfig) -> DictConfig:
    """Return the configuration of the run that trains the teacher: the student's options do not touch it."""
    plan = cfg.teacher.training
    own: DictConfig = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[assignment]
    with open_dict(own):
        own.seed, own.pretrained = plan.seed, plan.pretrained
        own.data.seed = plan.seed
        own.trainer.max_steps = plan.max_steps  # before what refers to it is resolved
        for group in ("loss", "optimizer", "scheduler"):
            own[group] = OmegaConf.to_container(own.teacher.training[group], resolve=True)
        own.student = OmegaConf.to_container(cfg.teacher.model, resolve=True)
        own.student.pretrained = plan.pretrained
        # What the student's run does beside its plan is no part of the key, so it must not reach the teacher; and one
        # process trains it: others would wait at the lock for what needs them.
        where = {key: value for key, value in own.trainer.items() if key in TRAINER}
        plain = {"accumulate_grad_batches": 1, "gradient_clip_val": None, "sync_batchnorm": False}
        own.trainer = {**where, **plain, "devices": 1, "num_nodes": 1}
        own.callbacks = {name: node for name, node in own.callbacks.items() if name in CALLBACKS}
        own.balance, own.skip_non_finite = None, 0
        own.name = f"teacher_{cfg.teacher.name}"
        own.teacher = {"name": "none", "model": None, "checkpoint": None}
        own.logger = {k: v for k, v in own.logger.items() if k == "csv"}
    return own


def cache_key(own: DictConfig) -> str:
    """Return a name for all that a teacher's weights depend on."""
    options: dict[str, Any] = OmegaConf.to_container(own.data, resolve=True)  # type: ignore[assignment]
    data = {k: v for k, v in with_table(options).items() if k not in NOT_IN_KEY}
    parts = {k: OmegaConf.to_container(own[k], resolve=True) for k in ("student", "loss", "optimizer", "scheduler")}
    steps = {"max_steps": own.trainer.max_steps, "seed": own.seed, "precision": own.trainer.precision}
    text = json.dumps({"version": RECIPE_VERSION, "data": data, **parts, **steps}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(cfg: DictConfig, train: Callable[[DictConfig], Any]) -> Path:
    own = teacher_config(cfg)
    folder = Path(str(cfg.cache_dir)).expanduser() / "teachers"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{own.data.name}_{own.name}_{cache_key(own)}"
    # Runs that start together share one teacher: the first trains it, the others wait.
    with FileLock(f"{kept}.lock"):
        if (kept / "checkpoints" / "last.ckpt").is_file():
            print(f"teacher: taken from {kept}")
        else:
            print(f"teacher: there is none yet for this configuration; training it once, to be kept in {kept}")
            with tempfile.TemporaryDirectory(dir=folder, prefix=".training-") as draft:
                own.run_dir = draft
                train(own)
                # TemporaryDirectory removes what is left of it; the finished run moves out whole.
                Path(draft).rename(kept)
                own.run_dir = str(kept)
                OmegaConf.save(own, kept / "config.yaml", resolve=True)
                Path(draft).mkdir()
    return kept / "checkpoints" / "last.ckpt"
