"""What the cases of a campaign came to, and its table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Outcome:
    """One case.

    Attributes:
        bad: why it did not survive: `wrong` result, `hang`, `unexplained` end; empty if it did.
        noticed: whether the fault was told to the user; false where the result was right in spite of it.
        lost: optimizer steps that had to be made again.
        note: what happened, for whoever looks into it.
    """

    group: str
    case: str
    bad: str = ""
    noticed: bool = False
    lost: int = 0
    note: str = ""


COLUMNS = ("faults", "cases", "survived", "noticed", "most steps lost", "wrong results", "hangs", "unexplained ends")


def rows(outcomes: Iterable[Outcome]) -> list[list[str]]:
    """Return the table's rows, one for each group and one for all."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.group, []).append(outcome)
    everything = [outcome for group in groups.values() for outcome in group]
    return [_row(name, group) for name, group in [*groups.items(), ("all", everything)]]


def _row(name: str, group: list[Outcome]) -> list[str]:
    bad = [outcome.bad for outcome in group]
    counts = [len(group), bad.count(""), sum(o.noticed for o in group), max((o.lost for o in group), default=0)]
    return [name, *map(str, counts), *(str(bad.count(kind)) for kind in ("wrong", "hang", "unexplained"))]


def markdown(outcomes: Iterable[Outcome]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows(outcomes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(outcomes: Iterable[Outcome], seed: int, seconds: float) -> dict[str, Any]:
    found = list(outcomes)
    table = [dict(zip(COLUMNS, row, strict=True)) for row in rows(found)]
    return {"seed": seed, "seconds": round(seconds, 1), "table": table, "cases": [asdict(o) for o in found]}
