"""A Weights & Biases run that never stops the training it shows."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from idd_seg.ops import private_api

ID_FILE = "wandb_id.txt"


class WandbRun(WandbLogger):
    """Lightning's logger, opened and written to by rank 0 alone, where every failure is one warning.

    Args:
        run_dir: the run folder, whose `config.yaml` is the configuration that is shown; what wandb writes lies in it.
        online: send while training; if that can't be begun within `timeout`, the run is kept offline.
        run_id: of a W&B run to go on with; None goes on with this folder's if there is a checkpoint to go on from.
        timeout: seconds to wait for the server, at the start and at the end.
        about: what wandb shows of the run: project, entity, name, group, job_type, tags.

    Attributes:
        seconds: that all runs of this process have spent in wandb; closing counts as opening.
    """

    seconds: ClassVar[dict[str, float]] = {"opening": 0.0, "logging": 0.0}

    def __init__(self, run_dir: Path, online: bool, run_id: str | None, timeout: float, about: Mapping[str, Any]):
        super().__init__(save_dir=run_dir, offline=not online, id=run_id, **about)
        self.run_dir, self.timeout, self.about = run_dir, timeout, dict(about)
        self.failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, opened when it is first asked for; None if that has failed."""
        run, _, _ = private_api.wandb_state(self)
        if run is None and not self.failed:
            close_wandb()  # another job's: each gets a run of its own
            with self._timed_and_safe("opening"):
                run = self._open()
                private_api.set_wandb_run(self, run)
                run.define_metric("trainer/global_step")
                run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log at an optimizer step."""
        place = {} if step is None else {"trainer/global_step": step}
        self.attempt(lambda run: run.log({**metrics, **place}))

    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: the resolved configuration, of which they are a part, is there from the start."""

    def attempt(self, action: Callable[[Any], object]) -> None:
        """Call `action` with the wandb run; after the first failure nothing is called any more. For rank 0."""
        run = self.experiment
        if not self.failed:
            with self._timed_and_safe("logging"):
                action(run)

    @contextmanager
    def _timed_and_safe(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.failed = True
            warnings.warn(
                f"wandb: {type(error).__name__}: {error}; the training goes on, without W&B from here", stacklevel=1
            )
        finally:
            WandbRun.seconds[what] += time.perf_counter() - start

    def _open(self) -> Any:
        import wandb

        _, offline, given = private_api.wandb_state(self)
        run_id = self._own_id(given)
        options = {**self.about, "dir": str(self.run_dir), "id": run_id, "config": _stored_config(self.run_dir)}
        if not offline:
            try:
                run = wandb.init(**options, resume="allow", settings=self._settings("online"))
                print(f"wandb: {run.url}")
                return run
            except Exception as error:
                warnings.warn(f"wandb: the server can't be used ({error}); this run is kept offline", stacklevel=1)
                # What was begun holds the id.
                wandb.teardown()
                private_api.set_wandb_offline(self)
        return wandb.init(**options, settings=self._settings("offline"))

    def _settings(self, mode: str) -> Any:
        """Return settings: no output of wandb's own, none of the program's taken, no waiting for ever."""
        import wandb

        wanted: dict[str, Any] = {
            "mode": mode,
            "console": "off",
            "silent": True,
            "init_timeout": self.timeout,
            "login_timeout": self.timeout,
            "finish_timeout": self.timeout,
            "finish_timeout_raises": True,
        }
        known = getattr(wandb.Settings, "model_fields", None) or wandb.Settings.__annotations__
        return wandb.Settings(**{key: value for key, value in wanted.items() if key in known})

    def _own_id(self, given: str | None) -> str | None:
        """Return the id of this folder's W&B run, and note it; a W&B sweep gives one to each run itself."""
        if "WANDB_SWEEP_ID" in os.environ:
            return os.environ.get("WANDB_RUN_ID")
        path = self.run_dir / ID_FILE
        run_id = given or os.environ.get("WANDB_RUN_ID")
        if not run_id and path.is_file() and (self.run_dir / "checkpoints" / "last.ckpt").is_file():
            run_id = path.read_text(encoding="utf-8").strip()
        run_id = run_id or secrets.token_hex(4)
        path.write_text(run_id + "\n", encoding="utf-8")
        return run_id


def _stored_config(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "config.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def close_wandb() -> str | None:
    """End the W&B run, so that a sweep's next job gets one of its own.

    A run that an exception ends is marked as failed.

    Returns:
        The folders of an offline run, as `wandb sync` takes them: one, or one for each part of a run that went on.
    """
    wandb = sys.modules.get("wandb")
    run = getattr(wandb, "run", None)
    if wandb is None or run is None:
        return None
    folder = Path(run.dir).parent
    parts = sorted(folder.parent.glob(f"{folder.name.split('-')[0]}*-{run.id}"))
    names = " ".join(shlex.quote(str(part)) for part in parts)
    offline = bool(run.offline)
    start = time.perf_counter()
    try:
        run.finish(exit_code=0 if sys.exc_info()[0] is None else 1)
    except Exception as error:
        warnings.warn(f"wandb: not all was sent ({error}); to send it: wandb sync {names}", stacklevel=1)
        if wandb.run is not None:
            wandb.teardown()
    WandbRun.seconds["opening"] += time.perf_counter() - start
    return names if offline else None
