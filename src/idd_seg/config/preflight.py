"""What is refused before a training begins."""

from __future__ import annotations

from omegaconf import DictConfig

from idd_seg.config import instantiate
from idd_seg.config.option_types import check_types
from idd_seg.config.ranges import check_numbers
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.errors import ConfigError, MissingDataError
from idd_seg.losses.term import Term

# Made after the teacher, which may have to be trained first: what is wrong with them is said before that.
GROUPS = (
    *("trainer", "student", "optimizer", "scheduler", "speed", "callbacks", "logger", "balance"),
    "teacher_cache",
)


def checked_data(cfg: DictConfig) -> SegmentationDataModule:
    """Build the data module and look for its files; refuse what can be known before the first step."""
    check_numbers(cfg)
    data = instantiate.make_data(cfg)
    if data.batch_size < 2:
        raise ConfigError("data.batch_size=1: the heads' BatchNorm over pooled maps needs at least 2 images")
    if "loss" not in cfg:
        raise ConfigError("there is no term; choose some, e.g. loss=[ce,kd,idd,position]")
    for group in GROUPS:
        check_types(cfg[group], group)
    try:
        data.setup("fit")
    except MissingDataError as error:
        raise MissingDataError(
            f"{error}; python -m idd_seg.prepare data={data.name} fetches what anyone may, and says what is missing"
        ) from error
    return data


def needs_teacher(cfg: DictConfig) -> bool:
    """Tell whether a term of the configuration needs a teacher.

    Raises:
        ConfigError: if so, and there is none.
    """
    names = needing(instantiate.make_terms(cfg.loss))
    if names and cfg.teacher.name == "none":
        raise ConfigError(f"teacher=none, but loss={','.join(names)} needs a teacher; use loss=ce, or choose a teacher")
    return bool(names)


def needing(terms: dict[str, Term]) -> list[str]:
    """Return the names of the terms that need a teacher."""
    return [name for name, term in terms.items() if term.needs_teacher]
