"""What a group of runs is called: by its name, by its folder, or by the options in which it differs from others."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from idd_seg.reporting.files import text_of
from idd_seg.reporting.runs import FoundRun

USUAL = 0.6
MOST = 60  # letters of a label
# A time of day, the number of a sweep's job, or a seed: folders that got their names by themselves.
AUTOMATIC = re.compile(r"\d\d-\d\d-\d\d|\d+(_|$)|seed|.*=")


class Named(Protocol):
    """Runs of equal options, and those options that differ from other groups'."""

    @property
    def runs(self) -> Sequence[FoundRun]: ...

    @property
    def options(self) -> Mapping[str, object]: ...


def labels(groups: Sequence[Named]) -> list[str]:
    """Return a label a group: `name=` where it is the group's own, else the folder's name, else options that differ.

    Folders that got their names by themselves (times, numbers of a sweep's jobs, seeds) say nothing, so options do.
    """
    names = [_name(group) for group in groups]
    counts = Counter(names)
    by_options = _by_options(groups)
    found = []
    for group, name, options in zip(groups, names, by_options, strict=True):
        found.append(name if name and counts[name] == 1 else _folder(group, 1) or options)
    # Equal folders of different parents: with the parents; what is then still equal, by its options.
    for depth in (2, 3):
        again = Counter(found)
        found = [
            (_folder(group, depth) or label) if again[label] > 1 else label
            for group, label in zip(groups, found, strict=True)
        ]
    again = Counter(found)
    return [
        f"{label}: {options}" if again[label] > 1 and label != options else label
        for label, options in zip(found, by_options, strict=True)
    ]


def _name(group: Named) -> str:
    """Return what all runs of a group were called by `name=`, empty where they differ."""
    found = {text_of(run.config.get("name") or "", MOST) for run in group.runs}
    return found.pop() if len(found) == 1 else ""


def _folder(group: Named, depth: int) -> str:
    """Return the end of the folders' paths, without what differs between the runs of a group; empty if it says nothing.

    Args:
        depth: parts of the path.
    """
    paths = {run.folder.resolve() for run in group.runs}
    if all(AUTOMATIC.match(path.name) for path in paths) and len(paths) > 1:
        paths = {path.parent for path in paths}  # METHOD/seed0, METHOD/seed1
    if len({path.parent for path in paths}) > 1:
        return ""
    last = _beginning([path.name for path in paths])
    last = last if len(paths) == 1 else re.sub(r"[\s._=-]*(seed)?[\s._=-]*$", "", last)
    parents = next(iter(paths)).parent.parts[1:]
    if not last or AUTOMATIC.match(last):
        return ""
    return text_of("/".join([*parents[len(parents) - depth + 1 :], last]), MOST)


def _beginning(words: Sequence[str]) -> str:
    """Return the letters that all words begin with."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    return "".join(letters[0] for letters in same)


def _by_options(groups: Sequence[Named]) -> list[str]:
    """Return labels of options, without those that nearly all groups share, as long as labels stay different."""
    counts: dict[str, Counter[str]] = {}
    for group in groups:
        for key, value in group.options.items():
            counts.setdefault(key, Counter())[str(value)] += 1
    found = []
    for group in groups:
        usual = {k for k, v in group.options.items() if k != "loss" and counts[k][str(v)] > USUAL * counts[k].total()}
        found.append(_label(group, usual))
    again = Counter(found)
    return [_label(group, set()) if again[label] > 1 else label for group, label in zip(groups, found, strict=True)]


def _label(group: Named, left_out: Set[str]) -> str:
    first = group.runs[0]
    words = [f"{short_key(k)}={short_value(v)}" for k, v in group.options.items() if k not in left_out]
    return ", ".join(words) or (text_of(first.config.get("name", "")) if first.options else "") or first.name


def short_key(key: str) -> str:
    """Return a key as a label: `loss.idd_weight` -> `idd_weight`, `optimizer._target_` -> `optimizer`."""
    return key.removesuffix("._target_").removeprefix("loss.")


def short_value(value: object) -> str:
    """Return a value as a label; a class path by its class."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text.rsplit(".", 1)[-1] if text.startswith(("idd_seg.", "torch.", "lightning.")) else text
    return text if len(text) <= 60 else text[:59] + "…"
