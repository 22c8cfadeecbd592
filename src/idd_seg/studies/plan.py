"""What a study compares: methods, how their weights are found, and how often each is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idd_seg.errors import ConfigError
from idd_seg.studies.plan_check import check_written

LISTS = ("common", "search", "factors", "seeds", "search_seeds")
WALL, PROCESSOR = "wall", "cpu"
CLOCKS = (WALL, PROCESSOR)
SLOWEST = "slowest"  # as_long_as: the method that takes longest
FOUND = "@"  # `kd: "@kd"`: the weight that was found for the method of that name


@dataclass(frozen=True, eq=False)  # a key by identity: its weights can't be hashed
class Method:
    """One way to train the student.

    Attributes:
        weights: by term; a number, or `@NAME`, the weight that the search found for this term in the method NAME.
        scale: terms whose weights the search multiplies by a common factor; none, and nothing is searched.
        options: further options of the training.
        against: name of the method that this one changes in one point; the table shows the difference.
        as_long_as: name of the method, or `slowest`, that this one takes as many seconds as: `against` with more steps
            or fewer, its schedule made for that length.
    """

    name: str
    weights: Mapping[str, float | str]
    scale: Sequence[str] = ()
    options: Sequence[str] = ()
    against: str | None = None
    as_long_as: str | None = None

    @property
    def sources(self) -> set[str]:
        """Names of the methods whose weights this one takes."""
        return {weight.removeprefix(FOUND) for weight in self.weights.values() if isinstance(weight, str)}

    def overrides(self, chosen: Mapping[str, Mapping[str, float]], factor: float) -> list[str]:
        """Return the options that train this method, given what the search has found so far."""
        weights = self.weights_at(chosen, factor)
        return [f"loss=[{','.join(weights)}]", *(f"loss.{k}_weight={w:g}" for k, w in weights.items()), *self.options]

    def weights_at(self, chosen: Mapping[str, Mapping[str, float]], factor: float) -> dict[str, float]:
        """Return the terms' weights with those of `scale` multiplied by `factor`."""
        base = {k: chosen[w.removeprefix(FOUND)][k] if isinstance(w, str) else w for k, w in self.weights.items()}
        return {k: w * factor if k in self.scale else w for k, w in base.items()}


@dataclass(frozen=True)
class StudyPlan:
    """A study.

    Attributes:
        common: options of every run.
        search: options of the runs that find the weights, beside `common`; they hold a part of the training split out.
        factors: that the weights are tried with.
        extend: how many factors more are tried, one after another, while the best one is the smallest or the largest.
        seeds, search_seeds: of the runs that count, and of those that find the weights.
        rates: learning rates that the twin is tried with before the weights are searched; all runs take the best one.
            None leaves the one that `common` gives.
        twin: name of the method that all are compared with.
        ours: name of the method whose lead over each other is shown; None shows none.
        rivals: names of the methods of others, of which the best is shown in pictures; none stands for all but ours.
        clock: by which times are compared: `wall`, or `cpu`, the processor's time in the training process, which what
            else the machine does changes little; for trainings without a GPU.
    """

    name: str
    common: Sequence[str]
    search: Sequence[str]
    factors: Sequence[float]
    seeds: Sequence[int]
    search_seeds: Sequence[int]
    twin: str
    methods: Mapping[str, Method]
    ours: str | None = None
    extend: int = 0
    rivals: Sequence[str] = ()
    clock: str = WALL
    rates: Sequence[float] = ()

    @property
    def timed_twin(self) -> str | None:
        """Name of the twin that trains as long as another method; None if there is none."""
        timed = (name for name, m in self.methods.items() if m.as_long_as is not None and m.against == self.twin)
        return next(timed, None)


def read_plan(node: Mapping[str, Any], only: Sequence[str] | None = None) -> StudyPlan:
    """Read a plan as the configuration has it.

    Args:
        only: names of the methods that are compared; None takes all.

    Raises:
        ConfigError: for a part that is missing or written otherwise, an unknown method, a method that refers to one
            that does not stand before it, a twin that is none of the methods, a scaled term without a weight, or a
            method against one, or as long as one, that is not there.
    """
    check_written(node)
    methods: dict[str, Method] = {}
    unknown = [name for name in only or () if name not in node["methods"]]
    if unknown:
        raise ConfigError(f"only={unknown[0]}: the study has the methods {', '.join(node['methods'])}")
    for name, given in node["methods"].items():
        if only is not None and name not in only:
            continue
        method = _method(name, given)
        _check_chosen(method, methods, node["methods"])
        _check(method, methods)
        _check_against(method, node["methods"])
        _check_time(method, node["methods"], only)
        methods[name] = method
    if only is not None and node["twin"] in node["methods"] and node["twin"] not in methods:
        raise ConfigError(f"only leaves out {node['twin']}, which all are compared with; add it to the list")
    if node["twin"] not in methods:
        raise ConfigError(f"study.twin={node['twin']} is none of the methods {', '.join(methods)}")
    extend, ours = node.get("extend", 0), _ours(node)
    if not isinstance(extend, int) or isinstance(extend, bool) or extend < 0:
        raise ConfigError(f"study.extend must be a whole number >= 0, got '{extend}'")
    if node.get("clock", WALL) not in CLOCKS:
        raise ConfigError(f"study.clock must be one of {', '.join(CLOCKS)}, got '{node['clock']}'")
    return StudyPlan(
        str(node["name"]),
        clock=node.get("clock", WALL),
        twin=str(node["twin"]),
        methods=methods,
        # Left out of the table where `only` leaves it out.
        ours=ours if ours in methods else None,
        extend=extend,
        rivals=_rivals(node),
        rates=_rates(node),
        **_lists(node),
    )


def _lists(node: Mapping[str, Any]) -> dict[str, list[Any]]:
    for key in LISTS:
        if not isinstance(node[key], list | tuple):
            raise ConfigError(f"study.{key} must be a list, e.g. [{node[key]}], got '{node[key]}'")
    if not node["seeds"] or not node["factors"] or not node["search_seeds"]:
        raise ConfigError("study.seeds, study.factors and study.search_seeds need at least one number each")
    return {key: list(node[key]) for key in LISTS}


def _rates(node: Mapping[str, Any]) -> tuple[float, ...]:
    rates = node.get("rates") or []
    if not isinstance(rates, list | tuple) or not all(_is_rate(rate) for rate in rates):
        raise ConfigError(f"study.rates must be a list of learning rates above 0, e.g. [1e-3, 3e-3], got '{rates}'")
    if rates and any(str(word).startswith(("optimizer.lr=", "lr=")) for word in node["common"]):
        raise ConfigError("study.rates searches the learning rate, which study.common gives; leave one of them out")
    return tuple(float(rate) for rate in rates)


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _ours(node: Mapping[str, Any]) -> str | None:
    ours = node.get("ours")
    if ours is not None and ours not in node["methods"]:
        raise ConfigError(f"study.ours={ours} is none of the methods {', '.join(node['methods'])}")
    return ours


def _rivals(node: Mapping[str, Any]) -> tuple[str, ...]:
    rivals = node.get("rivals") or []
    if not isinstance(rivals, list | tuple) or not set(rivals) <= set(node["methods"]):
        raise ConfigError(f"study.rivals={rivals}: name some of the methods {', '.join(node['methods'])}")
    return tuple(rivals)


def _method(name: str, given: Mapping[str, Any]) -> Method:
    lists = {key: list(given.get(key, ())) for key in ("scale", "options")}
    return Method(
        name, dict(given["weights"]), against=given.get("against"), as_long_as=given.get("as_long_as"), **lists
    )


def _check_against(method: Method, methods: Mapping[str, Any]) -> None:
    if method.against is not None and (method.against not in methods or method.against == method.name):
        others = ", ".join(name for name in methods if name != method.name)
        raise ConfigError(f"study.methods.{method.name}.against={method.against} is none of the other methods {others}")


def _check_time(method: Method, methods: Mapping[str, Any], only: Sequence[str] | None) -> None:
    if method.as_long_as is None:
        return
    key, there = f"study.methods.{method.name}", only or methods
    plain = [name for name, given in methods.items() if name in there and given.get("as_long_as") is None]
    if method.against not in plain:
        raise ConfigError(
            f"{key}.as_long_as needs {key}.against, the method whose steps it changes: {', '.join(plain)}"
        )
    base = _method(method.against, methods[method.against])
    if dict(base.weights) != dict(method.weights) or list(base.options) != list(method.options):
        raise ConfigError(
            f"{key}.as_long_as changes the number of steps alone, by the time that one of {method.against}'s takes, so "
            f"weights and options must be those of {method.against}"
        )
    if method.as_long_as != SLOWEST and method.as_long_as not in plain:
        raise ConfigError(f"{key}.as_long_as={method.as_long_as} is neither {SLOWEST} nor one of {', '.join(plain)}")


def _check_chosen(method: Method, before: Mapping[str, Method], methods: Mapping[str, Any]) -> None:
    """Refuse a method that takes a weight from one that `only` leaves out."""
    for source in sorted(method.sources):
        if source in list(methods)[: list(methods).index(method.name)] and source not in before:
            raise ConfigError(f"only leaves out {source}, whose weight {method.name} takes; add it to the list")


def _check(method: Method, before: Mapping[str, Method]) -> None:
    for term, weight in method.weights.items():
        if isinstance(weight, str):
            source = before.get(weight.removeprefix(FOUND))
            if not weight.startswith(FOUND) or source is None or term not in source.weights:
                raise ConfigError(
                    f"study.methods.{method.name}.weights.{term}={weight}: give a number, or {FOUND}NAME of a method "
                    f"that stands before it and has this term ({', '.join(before) or 'there is none'})"
                )
    lacking = [term for term in method.scale if term not in method.weights]
    if lacking:
        raise ConfigError(f"study.methods.{method.name}.scale names {lacking[0]}, which has no weight")
