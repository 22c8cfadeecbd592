"""What a run lets of Lightning through: the options of its Trainer, and its callbacks. Imports nothing heavy.

A test compares both tables with Lightning's own lists, so that a new option is entered before it can be given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from idd_seg.errors import ConfigError, suggest


@dataclass(frozen=True)
class Refused:
    """An option that would do nothing here, or something else than it says.

    Attributes:
        reason: why, and what to do instead.
        neutral: values at which it may be given, since the run does just that.
    """

    reason: str
    neutral: tuple[Any, ...] = ()


ONE_EPOCH = "Lightning sees a training as one epoch, and its length is trainer.max_steps"
# Of `trainer`, and no option of Lightning's: what this program reads there.
OURS = ("timeout_minutes",)
# Every option of lightning.Trainer: None is handed through.
TRAINER: dict[str, Refused | None] = {
    "accelerator": None,
    "strategy": None,
    "devices": None,
    "num_nodes": None,
    "precision": None,
    "max_steps": None,
    "max_time": None,
    "limit_val_batches": None,
    "val_check_interval": None,
    "log_every_n_steps": None,
    "accumulate_grad_batches": None,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "deterministic": None,
    "benchmark": None,
    "inference_mode": None,
    "profiler": None,
    "detect_anomaly": None,
    "sync_batchnorm": None,
    "logger": Refused("loggers are chosen by logger=csv, wandb or tensorboard"),
    "callbacks": Refused("callbacks stand in a group of their own: +callbacks.NAME._target_=..."),
    "plugins": Refused("the run brings its own, for checkpoints and for processes"),
    "fast_dev_run": Refused(
        "it would leave out checkpoints and scores; for a short try give trainer.max_steps=2", (False, 0, None)
    ),
    "max_epochs": Refused(ONE_EPOCH, (None, -1)),
    "min_epochs": Refused(ONE_EPOCH, (None,)),
    "min_steps": Refused("a run takes exactly trainer.max_steps steps", (None,)),
    "limit_train_batches": Refused(
        "it would show the same few batches for ever, since a training is one long epoch; for fewer pictures name "
        "fewer (data=folder: data.images.train), for a shorter run give trainer.max_steps",
        (None, 1.0),
    ),
    "overfit_batches": Refused(
        "it would shuffle nothing and judge by other pictures; to learn a few by heart name just these "
        "(data=folder: data.images.train and data.images.val)",
        (0, 0.0, None),
    ),
    "limit_test_batches": Refused("a training tests nothing; idd_seg.evaluate split=test does", (None, 1.0)),
    "limit_predict_batches": Refused("a training predicts nothing; idd_seg.predict does", (None, 1.0)),
    "check_val_every_n_epoch": Refused(f"{ONE_EPOCH}; give trainer.val_check_interval in steps", (None,)),
    "num_sanity_val_steps": Refused(
        "a run begins without a try at validation; data and options are looked at before", (None, 0)
    ),
    "enable_checkpointing": Refused("checkpoints are what a run is for; callbacks.last.every_n_steps says how often"),
    "enable_progress_bar": Refused("the progress bar is a callback: ~callbacks.progress leaves it out"),
    "enable_model_summary": Refused(
        "python -m idd_seg.benchmark model counts parameters and operations", (None, False)
    ),
    "use_distributed_sampler": Refused("the samplers of this program share pictures out themselves", (False,)),
    "reload_dataloaders_every_n_epochs": Refused(ONE_EPOCH, (0,)),
    "default_root_dir": Refused("give hydra.run.dir"),
    "barebones": Refused("it would leave out checkpoints and scores", (False,)),
    "enable_autolog_hparams": Refused("the configuration lies in config.yaml of the run folder, and goes to loggers"),
    "model_registry": Refused("the run folder holds the student; logger=wandb keeps it elsewhere, too", (None,)),
}

AVERAGE = "callbacks=average keeps a moving average of the student's weights"
BAR = "callbacks.progress is the bar of this program; ~callbacks.progress leaves it out"
# Every callback of lightning.pytorch.callbacks: None works here.
CALLBACKS: dict[str, str | None] = {
    "BackboneFinetuning": "it wants a network of another build; give the whole student its rate by optimizer.lr",
    "BaseFinetuning": "it is the base of others, and does nothing by itself",
    "BasePredictionWriter": "a training predicts nothing; python -m idd_seg.predict does",
    "BatchSizeFinder": "its trials would be steps of the run; python -m idd_seg.benchmark step measures batch sizes",
    "Callback": "it is the base of others, and does nothing by itself",
    "Checkpoint": "it is the base of others, and does nothing by itself",
    "DeviceStatsMonitor": None,
    "EarlyStopping": None,
    "EMAWeightAveraging": AVERAGE,
    "GradientAccumulationScheduler": "a run's steps have one size; give trainer.accumulate_grad_batches",
    "LambdaCallback": None,
    "LearningRateFinder": "its trials would be steps of the run; -m hparams=lr_optuna searches for the rate",
    "LearningRateMonitor": None,
    "ModelCheckpoint": None,
    "ModelPruning": "it renames the student's weights, which nothing could load then; take a narrower student",
    "ModelSummary": "python -m idd_seg.benchmark model counts parameters and operations",
    "OnExceptionCheckpoint": "callbacks.last keeps what a run that stops goes on from",
    "ProgressBar": BAR,
    "RichModelSummary": "python -m idd_seg.benchmark model counts parameters and operations",
    "RichProgressBar": BAR,
    "SpikeDetection": "callbacks.loss_spike warns of such steps, skip_non_finite leaves out those that are not finite",
    "StochasticWeightAveraging": AVERAGE,
    "TQDMProgressBar": BAR,
    "ThroughputMonitor": "callbacks.throughput measures it",
    "Timer": "give trainer.max_time",
    "WeightAveraging": AVERAGE,
}


def check_trainer(cfg: DictConfig) -> None:
    """Refuse options of the trainer and callbacks of Lightning's that would not do here what they say.

    Raises:
        ConfigError: that names the option, the reason, and what to do instead.
    """
    options = OmegaConf.to_container(cfg.trainer, resolve=True) if OmegaConf.is_dict(cfg.trainer) else {}
    assert isinstance(options, dict)
    for key, value in options.items():
        _check_option(str(key), value)
    # What a recipe has for the norm says nothing of single elements.
    given = OmegaConf.is_dict(cfg.trainer) and not OmegaConf.is_interpolation(cfg.trainer, "gradient_clip_val")
    clip = options.get("gradient_clip_val") if given else None
    if options.get("gradient_clip_algorithm") is not None and clip is None:
        raise ConfigError(
            f"trainer.gradient_clip_algorithm={options['gradient_clip_algorithm']} does nothing without "
            "trainer.gradient_clip_val; give both"
        )
    callbacks = cfg.get("callbacks")
    for name, node in callbacks.items() if OmegaConf.is_dict(callbacks) else ():
        _check_callback(str(name), node)


def _check_option(key: str, value: Any) -> None:
    if key == "_target_" or key in OURS:
        return
    if key not in TRAINER:
        raise ConfigError(f"there is no option 'trainer.{key}'{suggest(key, [*OURS, *TRAINER])}")
    entry = TRAINER[key]
    if entry is not None and not any(type(value) is type(one) and value == one for one in entry.neutral):
        raise ConfigError(f"trainer.{key}={value} has no place here: {entry.reason}")
    if key == "strategy" and not (value == "auto" or str(value).startswith("ddp") or isinstance(value, Mapping)):
        raise ConfigError(f"trainer.strategy must be auto or ddp, got '{value}'; other ways to share are not supported")
    if key == "profiler" and value is not None and not (isinstance(value, Mapping) and value.get("filename")):
        raise ConfigError(
            f"trainer.profiler={value} would show nothing here; python -m idd_seg.benchmark step tells where a step's "
            "time goes, or write a file: +trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler "
            "+trainer.profiler.filename=NAME"
        )
    if key == "limit_val_batches":
        _check_share(value)


def _check_share(value: Any) -> None:
    """Refuse no validation at all, and a number of batches that is neither whole nor a share."""
    whole = type(value) is int and value >= 1
    share = type(value) is float and math.isfinite(value) and 0 < value <= 1
    if not (whole or share):
        raise ConfigError(
            f"trainer.limit_val_batches must be a whole number of batches >= 1, or a share of them, above 0 to 1.0, "
            f"got '{value}'"
        )


def _check_callback(name: str, node: Any) -> None:
    target = str(node.get("_target_", "")) if isinstance(node, Mapping | DictConfig) else ""
    where, _, word = target.rpartition(".")
    if where.startswith("pytorch_lightning"):
        raise ConfigError(
            f"callbacks.{name}: '{target}' is of another package than this program's Lightning; name it as "
            f"lightning.pytorch.callbacks.{word}"
        )
    if where.startswith("lightning.") and (reason := CALLBACKS.get(word)) is not None:
        raise ConfigError(f"callbacks.{name}: Lightning's {word} has no place here: {reason}")
