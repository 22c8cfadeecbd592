"""A study's results as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idd_seg.studies.equal_time import to_score
from idd_seg.studies.jobs import Result
from idd_seg.studies.plan import WALL
from idd_seg.studies.statistics import Spread

Results = Mapping[str, Mapping[int, Result]]  # by method, by seed


def gains(results: Results, method: str, base: str) -> list[float]:
    """Return the differences to another method in mIoU, percent, seed by seed, of the seeds that both have."""
    return [
        100 * (result.miou - results[base][seed].miou)
        for seed, result in results[method].items()
        if seed in results[base]
    ]


def markdown(
    results: Results,
    twin: str,
    teacher: float | None,
    chosen: Mapping[str, Mapping[str, float]],
    ours: str | None = None,
    against: Mapping[str, str] | None = None,
    clock: str = WALL,
    timed_twin: str | None = None,
) -> str:
    """Return a Markdown table: a row a method.

    Args:
        teacher: its mIoU, 0 to 1.
        chosen: the weights of each method.
        ours: method whose lead over each other, of the same seeds, is a column.
        against: for some methods another; the difference to it, of the same seeds, is the last column. One that is not
            among the results shows none.
        clock: by which times are compared.
        timed_twin: the twin that trains as long as the slowest; the lead over it is a column.
    """
    heads = ["method", "weights", "mIoU, %", "seeds", "gain", "95 % of the gain", "gap closed", "time", "memory"]
    scored = {name: to_score(results, name, twin, clock) for name in results}
    if any(shares is not None for shares in scored.values()):
        heads.append("to the twin's score")
    else:
        scored = {}
    timed_twin = timed_twin if timed_twin in results else None
    if timed_twin is not None:
        heads.append("at equal time")
    lead = ours if ours in results else None
    if lead is not None:
        heads.append(f"{lead} is ahead by")
    bases = {name: base for name, base in (against or {}).items() if name in results and base in results}
    if bases:
        heads.append("against")
    lines = [f"| {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * (len(heads) - 2)}"]
    if teacher is not None:
        lines.append(f"| teacher | | {100 * teacher:.2f} | 1 |" + " |" * (len(heads) - 4))
    for name in results:
        cells = _row(results, name, twin, teacher, chosen.get(name, {}), clock)
        if scored:
            cells = [*cells, _part(scored[name])]
        if timed_twin is not None:
            cells = [*cells, "" if name == timed_twin else _signed(gains(results, name, timed_twin))]
        if lead is not None:
            cells = [*cells, "" if name == lead else _signed(gains(results, lead, name))]
        if bases:
            base = bases.get(name)
            cells = [*cells, "" if base is None else f"{base}: {_signed(gains(results, name, base))}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _signed(differences: Sequence[float]) -> str:
    """Return their mean, and its 95 % interval where there are several."""
    if not differences:
        return ""
    spread = Spread.of(differences)
    half = spread.half_width()
    return f"{spread.mean:+.2f}" + (
        "" if half is None else f" ({spread.mean - half:+.2f} to {spread.mean + half:+.2f})"
    )


def _part(shares: Sequence[float | None] | None) -> str:
    """Return the mean of the shares of the twin's time with its 95 % interval, or how many seeds reached its score."""
    reached = [share for share in shares or () if share is not None]
    if not reached:
        return "" if not shares else "not reached"
    spread = Spread.of(reached)
    if len(reached) < len(shares or ()):
        return f"{spread.mean:.2f} ({len(reached)} of {len(shares or ())} seeds)"
    half = spread.half_width()
    interval = "" if not half else f" ({max(0.0, spread.mean - half):.2f} to {spread.mean + half:.2f})"
    return f"{spread.mean:.2f}{interval}"


def _row(
    results: Results, name: str, twin: str, teacher: float | None, weights: Mapping[str, float], clock: str
) -> Sequence[str]:
    own, base = results[name], results[twin]
    score = Spread.of([100 * r.miou for r in own.values()])
    said = " ".join(f"{k} {w:g}" for k, w in weights.items() if k != "ce")
    cells = [name, said, _spread(score), str(score.number)]
    if name == twin:
        return [*cells, "", "", "", "1", "1"]
    gain = Spread.of(gains(results, name, twin))
    half = gain.half_width()
    interval = "" if half is None else f"{gain.mean - half:+.2f} to {gain.mean + half:+.2f}"
    start = Spread.of([100 * base[seed].miou for seed in own if seed in base]).mean
    gap = "" if teacher is None else _share(gain.mean, 100 * teacher - start)
    return [*cells, f"{gain.mean:+.2f}", interval, gap, *_cost(own, base, clock)]


def _spread(value: Spread) -> str:
    return f"{value.mean:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def _share(gain: float, gap: float) -> str:
    return f"{100 * gain / gap:.0f} %" if gap > 0 else "no gap"


def _cost(own: Mapping[int, Result], base: Mapping[int, Result], clock: str) -> list[str]:
    """Return time and memory relative to the twin's, of the seeds that both have."""
    seeds = [seed for seed in own if seed in base]
    times = [(own[s].time(clock), base[s].time(clock)) for s in seeds]
    known = [mine / theirs for mine, theirs in times if mine is not None and theirs]
    memory = Spread.of([own[s].memory / base[s].memory for s in seeds]).mean
    return [f"{Spread.of(known).mean:.2f}" if known else "", f"{memory:.2f}"]
