"""What the Distiller asks of its terms together: that there is something to train by, now and at every later step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from idd_seg.data.pipeline.class_counts import class_counts
from idd_seg.distillation.teacher_times import TeacherTimes
from idd_seg.errors import ConfigError
from idd_seg.losses.ops.class_weights import ClassCounts
from idd_seg.losses.term import Term

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

HINT = "let one go on (loss.<term>.schedule.stop=null)"
RESTING = "leaves out the terms that need the teacher at the other steps, and"
ALWAYS = TeacherTimes()


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say which term a refused value belongs to."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"loss.{name}: {error}") from error


def check_terms(terms: Mapping[str, Term], *, has_teacher: bool, times: TeacherTimes = ALWAYS) -> None:
    """Refuse terms that can't train a network: none at all, without their teacher, or all stopped at some step.

    Args:
        times: the steps at which the teacher is asked.

    Raises:
        ConfigError: that names them.
    """
    if not terms:
        raise ConfigError("there is no term with a weight above 0; choose some, e.g. loss=[ce,kd,cwd]")
    lacking = [name for name, term in terms.items() if term.needs_teacher]
    if lacking and not has_teacher:
        others = [name for name in terms if name not in lacking]
        use = f"[{','.join(others)}]" if len(others) > 1 else (others or ["ce"])[0]
        raise ConfigError(
            f"teacher=none, but loss={','.join(lacking)} needs a teacher; use loss={use}, or choose a teacher"
        )
    if not times.always and len(lacking) == len(terms):
        raise ConfigError(f"{times.words} {RESTING} loss={','.join(terms)} has no other; add one, e.g. ce")
    stops = [term.schedule.stop for term in terms.values() if term.schedule.stop is not None]
    if len(stops) == len(terms):
        raise ConfigError(f"all terms stop ({', '.join(terms)}): from step {max(stops)} on none would be left; {HINT}")


def bind_classes(terms: Mapping[str, Term], data: SegmentationDataModule) -> None:
    """Tell the terms of the classes of the training split; its labels are read if one asks for how often they occur.

    Raises:
        ConfigError: for a term whose options do not fit the classes.
        DataError: for a label that can't be read.
    """

    def counts() -> ClassCounts:
        return ClassCounts(*(torch.from_numpy(numbers) for numbers in class_counts(data)))

    for name, term in terms.items():
        with naming(name):
            term.bind_classes(data.num_classes, counts)


def check_run(terms: Mapping[str, Term], steps: float, times: TeacherTimes = ALWAYS) -> None:
    """Refuse a run of more optimizer steps than there are terms for, or one that never asks its teacher.

    Raises:
        ConfigError: that names the first step without a term, or what keeps the teacher from being asked.
    """
    needed = any(term.needs_teacher for term in terms.values())
    if needed and steps < float("inf") and not times.asked(int(steps)):
        raise ConfigError(
            f"{times.words} never asks the teacher in a run of {steps:g} steps; take loss=ce for its twin"
        )
    ends = [term.schedule.end for term in terms.values()]
    known = [end for end in ends if end is not None]
    if len(known) == len(ends) and max(known) < steps:
        nothing_left(terms, max(known))
    others = {name: term.schedule.end for name, term in terms.items() if not term.needs_teacher}
    if not times.always and others and all(end is not None and end < steps for end in others.values()):
        raise ConfigError(f"{times.words} {RESTING} {', '.join(others)} ends before the run does; {HINT}")


def nothing_left(terms: Iterable[str], step: int) -> None:
    """Raise the ConfigError of a step without terms."""
    raise ConfigError(
        f"no term is left at step {step}: the weights of {', '.join(terms)} are 0 by then; "
        f"{HINT}, or keep a floor above 0, or end the run there (trainer.max_steps={step})"
    )


def zero_path(parameters: Iterable[nn.Parameter]) -> Tensor | float:
    """Return exactly 0 with a gradient path to the parameters that are trained, whatever their values."""
    nothing = [parameter.flatten()[:0].sum() for parameter in parameters if parameter.requires_grad]
    return torch.stack(nothing).sum() if nothing else 0.0
