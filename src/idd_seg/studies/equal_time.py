"""Methods at equal time: how many steps take as long, and how soon a method is where the twin ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from idd_seg.errors import ConfigError
from idd_seg.studies.jobs import Result
from idd_seg.studies.plan import SLOWEST, WALL, Method, StudyPlan


def steps_as_long(plan: StudyPlan, method: Method, results: Mapping[str, Result]) -> int:
    """Return the steps after which a method has taken as long as the one that it names by `as_long_as`.

    Args:
        results: of one seed, by method: those that are not timed.

    Raises:
        ConfigError: if the results do not say how long they took, or of how many steps they are.
    """
    plain = {name: result for name, result in results.items() if plan.methods[name].as_long_as is None}
    times = {name: result.time(plan.clock) for name, result in plain.items()}
    base = plain[str(method.against)]
    own, known = times[str(method.against)], {name: time for name, time in times.items() if time is not None}
    named = max(known, key=lambda name: known[name], default="") if method.as_long_as == SLOWEST else method.as_long_as
    if own is None or base.steps is None or named not in known:
        raise ConfigError(
            f"study.methods.{method.name}.as_long_as: the results of '{method.against}' or '{named}' are of an earlier "
            f"version, which did not keep their steps and times (study.clock={plan.clock}); take another folder of "
            "results (results=)"
        )
    return max(1, round(base.steps * known[str(named)] / own))


def to_score(
    results: Mapping[str, Mapping[int, Result]], method: str, twin: str, clock: str
) -> list[float | None] | None:
    """Return how soon a method is where its twin ends, and stays there; a value a seed that both have.

    Each is the time until the first validation from which on no mIoU is below the twin's last, as a share of the
    twin's whole time; None where it never is. None in place of the list where times are not known.
    """
    key = "seconds" if clock == WALL else "cpu_seconds"
    found: list[float | None] = []
    for seed, result in results[method].items():
        base = results[twin].get(seed)
        if base is None or not result.course or not base.course:
            continue
        found.append(_share(result.course, base.miou, base.course[-1][key], key))
    return found or None


def _share(course: Sequence[Mapping[str, float]], score: float, whole: float, key: str) -> float | None:
    reached = None
    for moment in reversed(course):
        if moment["miou"] < score:
            break
        reached = moment[key] / whole
    return reached
