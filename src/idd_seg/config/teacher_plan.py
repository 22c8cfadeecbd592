"""The teacher that a configuration asks for: a file, or a training of its own that is kept under a key."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.config.lengths import teachers_interval
from idd_seg.config.option_roles import (
    NOT_IN_A_TEACHER,
    TEACHER_CALLBACKS,
    TEACHER_TRAINER,
    UNLABELLED,
    as_before,
    without,
)
from idd_seg.data.pipeline.labels import with_table
from idd_seg.errors import ConfigError, UserError, message_of

AUTO = "auto"
RECIPE_VERSION = 1  # raised when a change of code makes kept teachers stale


def is_foreign(teacher: DictConfig) -> bool:
    """Tell whether a teacher's configuration is one from elsewhere: it has no plan by which it could be trained."""
    return "training" not in teacher


def named_checkpoint(cfg: DictConfig) -> str | None:
    """Return the file that `teacher.checkpoint` names; None for a teacher that this program trains and keeps.

    Raises:
        ConfigError: if the teacher has no checkpoint, or can't be trained here; says how to get one.
    """
    checkpoint = cfg.teacher.checkpoint
    if is_foreign(cfg.teacher):
        return _foreign(cfg.teacher.name, checkpoint)
    if checkpoint == AUTO and cfg.teacher.get("class_map") is not None:
        raise ConfigError(
            "teacher.checkpoint=auto trains a teacher of the data's own classes; leave teacher.class_map out"
        )
    if checkpoint == AUTO and cfg.teacher.get("channels") is not None:
        raise ConfigError("teacher.checkpoint=auto trains a teacher of all channels; leave teacher.channels out")
    if checkpoint is None:
        name, data = cfg.teacher.name, cfg.data.name
        raise ConfigError(
            f"teacher.checkpoint is not set. Train the teacher: python -m idd_seg.train data={data} student={name} "
            f"teacher=none loss=ce{_given()}; then give its file with "
            "teacher.checkpoint=PATH. Or teacher.checkpoint=auto trains it now and keeps it"
        )
    return None if checkpoint == AUTO else str(checkpoint)


# Options of a student's run that its teacher's needs as well: where the data lies, and how it is computed.
SHARED = re.compile(
    r"\+*(data\.|trainer\.(accelerator|devices|strategy|precision|num_nodes)=|pretrained=|deterministic=)"
)


def _given() -> str:
    """Return the options of the command line that a training of the teacher needs too, as the shell takes them."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return "".join(f" {shlex.quote(word)}" for word in words if SHARED.match(word))


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
        # Augmentation that is repeated is for outputs that are kept: a teacher of its own learns from all of it.
        for key in (*UNLABELLED, "frozen_epochs"):
            if key in own.data:
                own.data[key] = None if key != "unlabelled_share" else 0.0
        own.trainer.val_check_interval = teachers_interval(cfg)
        own.trainer.max_steps = plan.max_steps  # before what refers to it is resolved
        for group in ("loss", "optimizer", "scheduler"):
            own[group] = OmegaConf.to_container(own.teacher.training[group], resolve=True)
        own.student = OmegaConf.to_container(cfg.teacher.model, resolve=True)
        own.student.pretrained = plan.pretrained
        # What the student's run does beside its plan is no part of the key, so it must not reach the teacher; and one
        # process trains it: others would wait at the lock for what needs them.
        where = {key: value for key, value in own.trainer.items() if key in TEACHER_TRAINER}
        plain = {"accumulate_grad_batches": 1, "gradient_clip_val": None, "sync_batchnorm": False}
        own.trainer = {**where, **plain, "devices": 1, "num_nodes": 1}
        own.callbacks = {name: node for name, node in own.callbacks.items() if name in TEACHER_CALLBACKS}
        own.balance, own.skip_non_finite = None, 0
        own.name = f"teacher_{cfg.teacher.name}"
        own.teacher = {"name": "none", "model": None, "checkpoint": None}
        own.logger = {k: v for k, v in own.logger.items() if k == "csv"}
        own.resume = own.init_from = own.freeze = own.epochs = own.quantize = None
    return own


def in_teachers_words(error: UserError) -> UserError:
    """Return an error of the teacher's own configuration by the names that its options have in the student's run."""
    text = message_of(error)
    for theirs, ours in _NAMES:
        text = re.sub(rf"(?<![\w.]){theirs}", ours, text)
    return type(error)(text)


# Of the teacher's own configuration, and of its student's run.
_NAMES = (
    (r"student\.pretrained(?=\b)", "teacher.training.pretrained"),
    (r"student\.", "teacher.model."),
    (r"(loss|optimizer|scheduler)\.", r"teacher.training.\1."),
    (r"trainer\.max_steps", "teacher.training.max_steps"),
    (r"pretrained(?==| must)", "teacher.training.pretrained"),
    (r"seed(?==| must)", "teacher.training.seed"),
)


def cache_key(own: DictConfig) -> str:
    """Return a name for all that a teacher's weights depend on."""
    data = with_table(without(OmegaConf.to_container(own.data, resolve=True), NOT_IN_A_TEACHER))  # type: ignore[arg-type]
    groups = ("student", "loss", "optimizer", "scheduler")
    parts = {k: as_before(OmegaConf.to_container(own[k], resolve=True), k) for k in groups}  # type: ignore[arg-type]
    steps = {"max_steps": own.trainer.max_steps, "seed": own.seed, "precision": own.trainer.precision}
    text = json.dumps({"version": RECIPE_VERSION, "data": data, **parts, **steps}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_folder(own: DictConfig, files: str, files_of: Callable[[Path], str | None]) -> Path:
    """Return the folder in which a teacher of this configuration and these files is kept, or will be.

    Args:
        files: digest of the training split's files.
        files_of: the same of a teacher that is kept in a folder; None where that is not known.
    """
    folder = Path(str(own.cache_dir)).expanduser() / "teachers"
    plain = folder / f"{own.data.name}_{own.name}_{cache_key(own)}"
    if not plain.exists() or files_of(plain) in (None, files):
        return plain
    return plain.with_name(f"{plain.name}_{files[:8]}")  # labels were mended, or pictures came, since that one


def kept_checkpoint(folder: Path) -> Path:
    """Return the file of a kept teacher's weights."""
    return folder / "checkpoints" / "last.ckpt"


def needing(terms: Any) -> list[str]:
    """Return the names of the terms that need a teacher."""
    return [name for name, term in terms.items() if term.needs_teacher]
