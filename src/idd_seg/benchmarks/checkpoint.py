"""What it costs that nothing is lost: writing a checkpoint against training, and going on against beginning."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig

from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import summary
from idd_seg.callbacks.checkpoint import save
from idd_seg.errors import UserError

STALL, RESUME = 0.01, 1.5
STEPS = 4  # of a run before it is stopped
# A student of the field's size: its checkpoint is the larger part of what is measured.
OPTIONS = (
    *("data=shapes", "data.size=[128,128]", "student=r18", "loss=ce", "teacher=none", "pretrained=false"),
    *("data.val_length=8", "resume=auto"),
)


class Clock(L.Callback):
    """Notes when a run has made its first step, how long a step and a checkpoint take, and stops it by SIGTERM."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.first = 0.0
        self.seconds: list[float] = []
        self.start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        self.first = self.first or time.time()
        if len(self.seconds) == STEPS:
            start = time.perf_counter()
            save(trainer, self.path.with_suffix(".ckpt"))
            spent = time.perf_counter() - start
            found = {"first": self.first, "step": min(self.seconds), "save": spent}
            self.path.write_text(json.dumps(found), encoding="utf-8")
            os.kill(os.getpid(), signal.SIGTERM)


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Begin a run, stop it, and let it go on, as commands of a user, in pairs."""
    colds: list[float] = []
    resumes: list[float] = []
    saves: list[float] = []
    steps: list[float] = []
    every = int(hydra.compose("train", ["data=shapes"]).callbacks.last.every_n_steps)
    with tempfile.TemporaryDirectory() as folder:
        for pair in range(max(3, int(cfg.repeats) // 3)):
            run_dir = Path(folder) / f"run{pair}"
            for seconds in (colds, resumes):
                start = time.time()
                found = _start(run_dir, device)
                seconds.append(found["first"] - start)
                saves.append(found["save"])
                steps.append(found["step"])
    between = every * min(steps)
    ratio = statistics.median(b / a for a, b in zip(colds, resumes, strict=True))
    return [
        Row(
            f"writing last.ckpt of a ResNet-18 student, every {every} steps",
            str(summary(saves)),
            f"training between: {between:.1f} s",
            statistics.median(saves) / between,
            "less",
            STALL,
        ),
        Row(
            "from the command to the first step, going on",
            str(summary(resumes)),
            f"beginning: {summary(colds)}",
            ratio,
            "less",
            RESUME,
        ),
    ]


def _start(run_dir: Path, device: torch.device) -> dict[str, float]:
    """Run the command, which stops itself, and return what its clock says."""
    path = run_dir.with_suffix(".json")
    clock = f"+callbacks.clock={{_target_: idd_seg.benchmarks.checkpoint.Clock, path: '{path}'}}"
    places = (f"hydra.run.dir={run_dir}", f"trainer.accelerator={'cpu' if device.type == 'cpu' else 'gpu'}")
    path.unlink(missing_ok=True)
    ended = subprocess.run(
        [sys.executable, "-m", "idd_seg.train", *OPTIONS, *places, "trainer.devices=1", clock],
        capture_output=True,
        text=True,
        check=False,
    )
    if not path.exists():
        raise UserError(f"a training that was to be timed ended with exit code {ended.returncode}:\n{ended.stderr}")
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found
