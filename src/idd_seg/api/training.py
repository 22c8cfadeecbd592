"""`idd_seg.train(...)`: the options of `python -m idd_seg.train`, asked for by a program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig

from idd_seg.api.trained import Trained, trained_in
from idd_seg.config.from_python import composed, words_of_options
from idd_seg.config.preflight import NOTHING_GIVEN, GivenParts
from idd_seg.config.ranges import check_ranges
from idd_seg.distributed.environment import rank_info_of
from idd_seg.errors import ConfigError
from idd_seg.runs.provenance import asked_by_program
from idd_seg.runs.run import run


def train(*texts: str, **options: Any) -> Trained:
    """Train a student: `idd_seg.train(data="shapes", loss=["ce", "kd"], trainer={"max_steps": 500})`.

    Signals are heard as in a run of the command line, and given back with all else that a run sets.

    Args:
        texts: options as the command line has them, `"loss.kd_weight=0.5"`.
        options: the same by keyword: numbers, texts, None, or lists of these; a mapping stands for options inside
            of a group. `run_dir` names the run's folder.

    Raises:
        UserError: or one of its kinds, for whatever is wrong with options, data or files.
    """
    words = words_of_options(texts, options)
    with composed(words) as cfg:
        return run_here(cfg, words)


def run_here(cfg: DictConfig, words: Sequence[str] | None, given: GivenParts = NOTHING_GIVEN) -> Trained:
    """Train `cfg`, and return what its folder holds.

    Args:
        words: that would ask for the same on a command line; None where there are none.

    Raises:
        UserError: for whatever is wrong with options, data or files.
    """
    if rank_info_of() is not None:
        raise ConfigError(
            "this is a process of torchrun or srun, whose processes belong to one run of python -m idd_seg.train; a "
            "program starts a process for each device by itself: trainer.devices=N"
        )
    check_ranges(cfg)
    token = asked_by_program.set(words)
    try:
        with _process_left_as_it_was():
            run(cfg, given)
    finally:
        asked_by_program.reset(token)
    return trained_in(Path(cfg.run_dir))


@contextmanager
def _process_left_as_it_was() -> Iterator[None]:
    """Put back what a run chooses for all of the process: random numbers, variables, the precision of products."""
    variables = dict(os.environ)
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    try:
        with isolate_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = tf32, benchmark
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
