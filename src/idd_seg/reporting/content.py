"""What the page is told: three parts, so that the table need not wait for curves and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from idd_seg.ops.html_page import as_json
from idd_seg.plotting.error_maps import COLOURS, OF_ONE, OF_TWO
from idd_seg.reporting.cases import read_cases
from idd_seg.reporting.curves import POINTS, short, thin
from idd_seg.reporting.exhibits import read_exhibits
from idd_seg.reporting.files import text_of
from idd_seg.reporting.groups import Group, Stat, gain_of, miou, pairs, stat
from idd_seg.reporting.labels import short_key, short_value
from idd_seg.reporting.runs import FoundRun, Score

ALL_POINTS = 600_000
ALL_EXHIBITS = 32 * 2**20


@dataclass(frozen=True)
class Content:
    """JSON texts: of the table, of the curves, and of each embedded run's exhibits by the run's number."""

    table: str
    curves: str
    exhibits: dict[int, str]


def make_content(
    title: str, groups: Sequence[Group], keys: Sequence[str], notes: Sequence[str], pictures: int, worst: int
) -> Content:
    """Turn groups into what the page reads.

    Args:
        pictures: the number of runs whose exhibits are embedded, at most ALL_EXHIBITS bytes of them.
        worst: pictures of each of them that are worst, most improved and most worsened.
    """
    runs = [run for group in groups for run in group.runs]
    number_of = {id(run): i for i, run in enumerate(runs)}
    paired = {number_of[id(run)]: (run, twin) for group in groups for run, twin in pairs(group)}
    twins = {i: twin for i, (_, twin) in paired.items()}
    exhibits = _exhibits(groups, number_of, twins, pictures, worst)
    entries = []
    for i, run in enumerate(runs):
        entry = _run(run)
        if i in paired:
            run_, twin = paired[i]
            entry |= {"gain": gain_of(run_, twin), "twin": number_of[id(twin)]}
        entry["exhibits"] = i in exhibits
        entries.append(entry)
    table = {
        "title": title,
        "notes": [text_of(note, 400) for note in notes],
        "errors": _errors(),
        "axes": [{"key": key, "label": short_key(key)} for key in keys],
        "groups": [_group(group, groups, number_of) for group in groups],
        "runs": entries,
    }
    return Content(as_json(table), as_json(_curves(runs)), exhibits)


def _stat(found: Stat | None) -> dict[str, Any] | None:
    return asdict(found) if found else None


def _group(group: Group, groups: Sequence[Group], number_of: dict[int, int]) -> dict[str, Any]:
    runs = group.runs
    states: dict[str, int] = {}
    for run in runs:
        states[run.state] = states.get(run.state, 0) + 1
    return {
        "label": group.label,
        "options": {k: v if isinstance(v, int | float) else short_value(v) for k, v in group.options.items()},
        "runs": [number_of[id(run)] for run in runs],
        "last": _stat(stat(map(miou, runs))),
        "best": _stat(stat(run.best.miou if run.best else None for run in runs)),
        "gain": _stat(group.gain),
        "paired": group.paired,
        "gap": _stat(group.gap),
        "teacher": group.teacher,
        "twin": next((i for i, g in enumerate(groups) if g is group.twin), None),
        "parameters": _mean(run.parameters for run in runs),
        "seconds": _mean(run.seconds for run in runs),
        "speed": _mean(run.images_per_s for run in runs),
        "states": states,
    }


def _mean(values: Any) -> float | None:
    found = stat(values)
    return short(found.mean, 6) if found else None


def _run(run: FoundRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "seed": run.seed,
        "state": run.state,
        "error": run.error,
        "notes": run.notes,
        "command": run.command,
        "last": _score(run.last),
        "best": run.best.miou if run.best else None,
        "parameters": run.parameters,
        "seconds": run.seconds,
        "speed": run.images_per_s,
    }


def _score(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {"miou": score.miou, "step": score.step, "iou": {k: short(v, 4) for k, v in score.iou.items()}}


def _curves(runs: Sequence[FoundRun]) -> list[dict[str, Any]]:
    """Return per run the columns; those of equal steps share them."""
    count = sum(len(run.curves) for run in runs)
    points = max(20, min(POINTS, ALL_POINTS // max(1, count)))
    found = []
    for run in runs:
        shared: dict[tuple[float, ...], int] = {}
        columns = {}
        for name, curve in run.curves.items():
            steps, values = thin(curve, points)
            columns[name] = [shared.setdefault(tuple(steps), len(shared)), values]
        found.append({"steps": [list(steps) for steps in shared], "columns": columns})
    return found


def _exhibits(
    groups: Sequence[Group], number_of: dict[int, int], twins: dict[int, FoundRun], count: int, worst: int
) -> dict[int, str]:
    """Embed the exhibits of the best groups and of their twins first."""
    chosen: dict[int, str] = {}
    size = 0
    for run in _in_order(groups):
        if len(chosen) >= count or size >= ALL_EXHIBITS:
            break
        i = number_of[id(run)]
        if i not in chosen and (found := read_exhibits(run.folder, run.notes)) is not None:
            twin = twins[i].folder if i in twins else None
            found["cases"] = read_cases(run.folder, twin, len(found["classes"]), worst, run.notes)
            text = as_json(found)
            if size + len(text) <= ALL_EXHIBITS:
                chosen[i] = text
                size += len(text)
    return chosen


def _errors() -> dict[str, list[tuple[str, tuple[int, int, int]]]]:
    """Return the words and colours of error maps, of one network and of two."""
    return {key: [(word, COLOURS[i]) for i, word in words.items()] for key, words in (("one", OF_ONE), ("two", OF_TWO))}


def _in_order(groups: Sequence[Group]) -> list[FoundRun]:
    def height(group: Group) -> float:
        found = stat(map(miou, group.runs))
        return -(found.mean if found else -1)

    ordered: list[FoundRun] = []
    for group in sorted(groups, key=height):
        ordered.append(group.runs[0])
        twins = {run.seed: run for run in group.twin.runs} if group.twin else {}
        ordered += [twins[group.runs[0].seed]] if group.runs[0].seed in twins else list(twins.values())[:1]
    rest = [run for group in groups for run in group.runs[1:]]
    return list({id(run): run for run in [*ordered, *rest]}.values())
