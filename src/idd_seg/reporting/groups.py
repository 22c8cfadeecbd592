"""Runs that differ by their seed alone, their twins, and what was gained."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from idd_seg.reporting.labels import labels
from idd_seg.reporting.options import axes, key_of
from idd_seg.reporting.runs import FoundRun


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (None of one value) of `n` values."""

    mean: float
    std: float | None
    n: int


@dataclass
class Group:
    """Runs of equal options, and what they are called; `options` are those that differ between the groups."""

    runs: list[FoundRun]
    label: str = ""
    options: dict[str, object] = field(default_factory=dict)
    twin: Group | None = None
    gain: Stat | None = None
    paired: bool = True
    gap: Stat | None = None
    teacher: float | None = None


def stat(values: Iterable[float | None]) -> Stat | None:
    """Return mean, sample standard deviation and count of the values that are there; None of none."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    return Stat(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def miou(run: FoundRun) -> float | None:
    """Return the mIoU of a run's last step."""
    return run.last.miou if run.last else None


def make_groups(
    runs: Sequence[FoundRun], teacher_of: Callable[[FoundRun], float | None]
) -> tuple[list[Group], list[str]]:
    """Group runs, find twins and gains; return the groups and the keys of the options that differ.

    Args:
        teacher_of: the mIoU of the teacher that a run was distilled from, None if it is not known.
    """
    found: dict[str, Group] = {}
    for run in runs:
        # Without a configuration nothing says that two runs are alike.
        key = key_of(run.options) if run.options else f"folder {run.folder}"
        found.setdefault(key, Group([])).runs.append(run)
    groups = list(found.values())
    for group in groups:
        group.runs.sort(key=lambda run: (run.seed is None, run.seed or 0))
    chosen = dict.fromkeys(key for run in runs for key in run.changed)
    keys = axes([run.options for run in runs if run.options], list(chosen))
    _set_options(groups, keys)
    for group, label in zip(groups, labels(groups), strict=True):
        group.label = label
    for group in groups:
        group.twin = _twin_of(group, groups)
        _measure(group, teacher_of)
    return groups, keys


def _set_options(groups: Sequence[Group], keys: Sequence[str]) -> None:
    for group in groups:
        group.options = {key: group.runs[0].options[key] for key in keys if key in group.runs[0].options}


def _twin_of(group: Group, groups: Sequence[Group]) -> Group | None:
    first = group.runs[0]
    if first.plain or first.twin_key is None:
        return None
    seeds = {run.seed for run in group.runs}
    same = [g for g in groups if g is not group and g.runs[0].plain and g.runs[0].twin_key == first.twin_key]
    # The best matched of several: most seeds in common, then most runs.
    return max(same, key=lambda g: (len(seeds & {run.seed for run in g.runs}), len(g.runs)), default=None)


def pairs(group: Group) -> list[tuple[FoundRun, FoundRun]]:
    """Return the runs of a group with the twin's of the same seed, where both have a mIoU."""
    if group.twin is None:
        return []
    by_seed = {run.seed: run for run in reversed(group.twin.runs) if run.seed is not None and run.last}
    return [(run, by_seed[run.seed]) for run in group.runs if run.last and run.seed in by_seed]


def gain_of(run: FoundRun, twin: FoundRun) -> float:
    """Return how much more mIoU a run has than its twin."""
    assert run.last is not None
    assert twin.last is not None
    return run.last.miou - twin.last.miou


def _measure(group: Group, teacher_of: Callable[[FoundRun], float | None]) -> None:
    teachers = stat(teacher_of(run) for run in group.runs)
    group.teacher = teachers.mean if teachers else None
    if group.twin is None:
        return
    matched = pairs(group)
    if matched:
        group.gain = stat(gain_of(run, twin) for run, twin in matched)
        group.gap = stat(share(gain_of(run, twin), teacher_of(run), miou(twin)) for run, twin in matched)
        return
    group.paired = False
    own, other = stat(map(miou, group.runs)), stat(map(miou, group.twin.runs))
    if own and other:
        group.gain = Stat(own.mean - other.mean, None, min(own.n, other.n))
        closed = share(group.gain.mean, group.teacher, other.mean)
        group.gap = None if closed is None else Stat(closed, None, group.gain.n)


def share(gain: float, teacher: float | None, twin: float | None) -> float | None:
    """Return the part of the gap between twin and teacher that is closed; None where the teacher is no better."""
    if teacher is None or twin is None or teacher <= twin:
        return None
    return gain / (teacher - twin)
