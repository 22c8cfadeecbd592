"""Where metrics go: a CSV file in every run folder; Weights & Biases or TensorBoard by option."""

from __future__ import annotations

import importlib.util
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger

from idd_seg.errors import ConfigError

MODES = ("auto", "online", "offline", "disabled")
LONGEST_TAG = 64  # wandb refuses longer ones when the run is opened


class Silent(Logger):
    """Writes nothing: a logger that was chosen, and switched off."""

    name, version = "silent", 0

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


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
    run_dir: str,
    project: str,
    name: str,
    group: str | None,
    tags: Sequence[str],
    mode: str = "auto",
    entity: str | None = None,
    job_type: str | None = None,
    id: str | None = None,
    timeout: float = 60,
) -> Logger:
    """Weights & Biases, with its files in the run folder.

    Args:
        group: None takes the name of the sweep's folder, if the run is a job of a sweep.
        mode: `online`, `offline`, `disabled` (nothing is written), or `auto`: as WANDB_MODE says, else online if there
            is a key, else offline.
        id: of a W&B run to go on with; None: a resumed run goes on with its own, any other gets a new one.
        timeout: seconds to wait for the server, when the run is opened and when it is closed.

    Raises:
        ConfigError: if wandb is not installed, or for an option that wandb would refuse.
    """
    if mode not in MODES:
        raise ConfigError(f"logger.wandb.mode must be {', '.join(MODES[:-1])} or {MODES[-1]}, got '{mode}'")
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"logger.wandb.timeout must be a number of seconds > 0, got '{timeout}'")
    if isinstance(tags, str):
        raise ConfigError(f"logger.wandb.tags is a list: logger.wandb.tags=[{tags}]")
    for tag in tags:
        if not 1 <= len(str(tag)) <= LONGEST_TAG:
            raise ConfigError(f"logger.wandb.tags: a tag has 1 to {LONGEST_TAG} characters, got '{tag}'")
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError("logger=wandb needs wandb: pip install wandb")
    if (chosen := _mode(mode)) == "disabled":
        return Silent()
    from idd_seg.loggers.wandb_run import WandbRun

    folder = Path(run_dir)
    sweep = sweep_of(folder)
    about = {
        "project": project,
        "entity": entity,
        "name": name if sweep is None else f"{name} {_job_of(folder, sweep)}",
        "group": group or (None if sweep is None else sweep.name),
        "job_type": job_type,
        "tags": [str(tag) for tag in tags],
    }
    folder.mkdir(parents=True, exist_ok=True)
    return WandbRun(folder, chosen == "online", id, timeout, about)


def sweep_of(run_dir: Path) -> Path | None:
    """Return the sweep folder that a run folder lies in, by the file that Hydra writes there; None for a single run."""
    return next((f for f in run_dir.resolve().parents if (f / "multirun.yaml").is_file()), None)


def _job_of(run_dir: Path, sweep: Path) -> str:
    """Return the job's number, with which its folder begins; all that is swept could be too long for a name."""
    return run_dir.resolve().relative_to(sweep).parts[0].split("_")[0]


def _mode(mode: str) -> str:
    """Return `online`, `offline` or `disabled`.

    Raises:
        ConfigError: for a word in WANDB_MODE that wandb does not know.
    """
    if mode != "auto":
        return mode
    word = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    found = {"dryrun": "offline", "run": "online"}.get(word, word)
    if found not in MODES[1:]:
        raise ConfigError(f"WANDB_MODE={word}: it must be {', '.join(MODES[1:-1])} or {MODES[-1]}")
    return found


def has_wandb_key() -> bool:
    """Tell whether wandb can log in without asking: by environment, or by its entry in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    own = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname
    return any("wandb" in host or host == own for host in hosts)


def close_wandb() -> str | None:
    """End the W&B run of this process, if there is one; see `wandb_run.close_wandb`."""
    if "wandb" not in sys.modules:
        return None
    from idd_seg.loggers import wandb_run

    return wandb_run.close_wandb()
