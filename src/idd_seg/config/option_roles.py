"""What an option is for: which belong to a teacher, which name a picture, which may change when a run resumes.

The one place for such lists. Whoever adds an option looks here whether it belongs to one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Of `data`: how samples are loaded and counted. Neither a sample nor what is learnt from it depends on them.
LOADING = ("num_workers", "timeout_s", "cache", "cache_dir", "counts")
# Of `data`: pictures without labels, which a teacher is not trained on. Which they are is told by their files.
UNLABELLED = ("unlabelled", "unlabelled_share", "teacher_labels")
# Of `data`: what neither the pixels nor the labels of a training sample depend on.
NOT_IN_A_PICTURE = (*LOADING, *UNLABELLED, "batch_size", "eval_batch_size", "recipe")
# Of `data`: what a teacher's weights do not depend on; its seed stands in its own plan.
NOT_IN_A_TEACHER = (*LOADING, *UNLABELLED, "eval_batch_size", "seed", "val_length", "test_length", "recipe")

# Of `teacher`: what the outputs of its network do not depend on, once its file is known by its hash.
NOT_IN_AN_OUTPUT = ("name", "checkpoint", "training", "every_n_steps", "start", "stop")

# Of `trainer`: what a teacher's training takes over from its student's run. Where and how it is computed, and what is
# seen of it; nothing that changes what is learnt.
TEACHER_TRAINER = (
    *("_target_", "accelerator", "strategy", "timeout_minutes", "precision", "max_steps", "val_check_interval"),
    *("check_val_every_n_epoch", "log_every_n_steps", "deterministic", "limit_val_batches", "benchmark"),
)
# The callbacks that a teacher's training takes over.
TEACHER_CALLBACKS = ("checkpoint", "last", "throughput", "duration", "progress", "sample_gallery", "loss_spike")

# What may change when a run resumes: where things lie, who watches, and how samples are loaded.
MAY_CHANGE = (
    *("resume", "run_dir", "output_dir", "cache_dir", "logger", "callbacks", "name", "teacher_cache.folder"),
    "max_idle_restarts",
    # Of all optimizers; those that are used are compared as optimizer.lr and trainer.gradient_clip_val.
    *("data.recipe.lr", "data.recipe.gradient_clip"),
    *("trainer.timeout_minutes", "trainer.max_time", *(f"data.{name}" for name in LOADING)),
)

# Beside those of `data`: what runs of before do not have, with the values that stand for what these did.
NEW = {
    **{"loss.idd.level": "classes", "loss.idd.side": "both", "loss.idd.lift": False},
    **{
        "teacher.every_n_steps": 1,
        "teacher.start": 0,
        "teacher.stop": None,
        "teacher.scale": 1.0,
        "init_from": None,
        "freeze": None,
        "quantize": None,
        "data.recipe.teacher": None,
    },
    **{"epochs": None, "student.in_channels": 3, "teacher.model.in_channels": 3, "teacher.channels": None},
    **{
        "loss.ce.class_weights": None,
        "loss.ce.label_smoothing": 0.0,
        "loss.ce.ohem": None,
        "loss.ce.ohem_least": 0.0625,
    },
}


def may_change(key: str) -> bool:
    """Tell whether a run may resume with another value of an option, given by its dotted name."""
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def is_as_before(key: str, value: Any) -> bool:
    """Tell whether an option, given by its dotted name, is new and changes nothing with this value."""
    plain = key.removeprefix("teacher.training.")
    return plain in NEW and bool(NEW[plain] == value)


def as_before(options: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return a group of options, however deep, without new ones that change nothing.

    Args:
        name: of the group, dotted.
    """
    found = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            found[str(key)] = as_before(value, f"{name}.{key}")
        elif not is_as_before(f"{name}.{key}", value):
            found[str(key)] = value
    return found


def without(options: Mapping[Any, Any], left_out: Iterable[str]) -> dict[str, Any]:
    """Return options as a dictionary, without some of them."""
    gone = set(left_out)
    return {str(key): value for key, value in options.items() if key not in gone}
