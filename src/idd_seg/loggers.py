"""Where metrics go: a CSV file in every run folder; Weights & Biases or TensorBoard by option."""

from __future__ import annotations

import netrc
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger

from idd_seg.errors import ConfigError


def csv_logger(run_dir: str) -> Logger:
    """`metrics.csv` in the run folder."""
    return CSVLogger(run_dir, name="", version="", flush_logs_every_n_steps=50)


def tensorboard_logger(run_dir: str) -> Logger:
    """TensorBoard's event files in `tensorboard/` of the run folder.

    Raises:
        ConfigError: if TensorBoard is not installed.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(run_dir, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError("logger=tensorboard needs TensorBoard: pip install 'idd-seg[tensorboard]'") from error


def wandb_logger(
    run_dir: str, project: str, name: str, group: str | None, tags: Sequence[str], mode: str = "auto"
) -> Logger:
    """Weights & Biases, with its files in the run folder.

    Args:
        mode: `online`, `offline`, or `auto`: online if there is a key, else offline.

    Raises:
        ConfigError: if wandb is not installed, or for an unknown mode.
    """
    if mode not in ("auto", "online", "offline"):
        raise ConfigError(f"logger.wandb.mode must be auto, online or offline, got '{mode}'")
    from lightning.pytorch.loggers import WandbLogger

    offline = mode == "offline" or (mode == "auto" and not has_wandb_key())
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    try:
        return WandbLogger(
            name=name, save_dir=run_dir, project=project, offline=offline, group=group, tags=list(tags), log_model=False
        )
    except ModuleNotFoundError as error:
        raise ConfigError("logger=wandb needs wandb: pip install wandb") from error


def has_wandb_key() -> bool:
    """Tell whether wandb can log in without asking: by environment, or by its entry in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def close_wandb() -> str | None:
    """End the wandb run, so that a sweep's next job gets one of its own; return the folder of an offline run."""
    import sys

    wandb = sys.modules.get("wandb")
    if wandb is None or getattr(wandb, "run", None) is None:
        return None
    run = wandb.run
    folder = str(Path(run.dir).parent) if run.offline else None
    wandb.finish()
    return folder
