"""Which pictures are held out to judge on, and which of those that are trained on have labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from idd_seg.data.pipeline.source import Hidden, Part, Source, spread

FEW = 5  # sequences; of fewer, each gives its last pictures
NUMBER = re.compile(r"\d+$")


def held_out(names: Sequence[str], share: float) -> list[int]:
    """Return the places of the pictures that are held out; the same for the same names, in any order of them.

    Pictures whose names differ by the number at their end alone are taken for a sequence, whose neighbours look alike.
    Of five or more sequences whole ones are held out, spread evenly; of fewer each gives its last pictures. Pictures
    that are in no sequence are held out evenly.

    Args:
        names: paths of the photographs.
        share: of them, above 0 and below 1.
    """
    groups: dict[tuple[str, str], list[tuple[int, str, int]]] = {}
    for place, name in enumerate(names):
        path = PurePath(name)
        number = NUMBER.search(path.stem)
        beginning = path.stem[: number.start()] if number else path.stem
        groups.setdefault((str(path.parent), beginning), []).append((int(number[0]) if number else 0, name, place))
    ordered = [[place for *_, place in sorted(groups[key])] for key in sorted(groups)]
    if len(ordered) < FEW:
        return sorted(place for group in ordered for place in group[len(group) - round(share * len(group)) :])
    found, owed = [], 0.0
    for group in ordered:
        owed += share * len(group)
        if owed >= len(group) / 2:
            found += group
            owed -= len(group)
    return sorted(found)


def training_parts(source: Source, parts: int | None) -> tuple[Source, Source]:
    """Return what is trained on, and the last of so many parts, which stands in for `val`; None holds nothing out."""
    if parts is None:
        return source, Part(source, ())
    cut = len(source) - len(source) // parts
    return Part(source, range(cut)), Part(source, range(cut, len(source)))


def by_labels(source: Source, share: float) -> tuple[Source, Source]:
    """Return the pictures whose labels are used, a share of them spread evenly, and the others without labels."""
    labelled = spread(len(source), max(1, round(share * len(source))))
    if len(labelled) == len(source):
        return source, Hidden(Part(source, ()))
    return Part(source, labelled), Hidden(Part(source, sorted({*range(len(source))} - {*labelled})))
