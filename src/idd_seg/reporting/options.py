"""Configurations as flat options: what differs between runs, and what makes two runs twins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from idd_seg.reporting.files import number, part, text_of

Flat = dict[str, Any]
LEAVES = 5000
# They say where a run writes and what it is called, not what it does.
PLACES = {"name", "run_dir", "output_dir", "cache_dir", "resume", "hydra"}
OF_THE_METHOD = ("loss", "teacher", "balance")
# Of the callbacks those that change what comes of a run; the others look on.
CHANGING = ("callbacks.average", "callbacks.pruning")


def flatten(config: Mapping[str, Any]) -> Flat:
    """Return dotted keys and plain values; a list is a value. At most LEAVES of them, against nested aliases."""
    flat: Flat = {}
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting and len(flat) < LEAVES:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            # An empty one says what its absence says.
            if len(waiting) < LEAVES:
                waiting += [(f"{key}.{name}" if key else text_of(name, 80), child) for name, child in value.items()]
        else:
            flat[text_of(key)] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list) and len(value) <= 16 and all(not isinstance(v, list | dict) for v in value):
        return "[" + ",".join(text_of(v, 40) for v in value) + "]"
    # Lists of lists (palettes) are compared, never shown.
    return text_of(value) if isinstance(value, str) else text_of(_dump(value), 4000)


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except (ValueError, RecursionError):
        return "(nested)"


def terms(config: Mapping[str, Any]) -> list[str]:
    """Return the loss terms that count: those of weight 0 are not built."""
    loss = part(config, "loss")
    names = [str(name) for name, value in loss.items() if isinstance(value, dict)]
    return sorted(
        (text_of(n, 60) for n in names if number(loss.get(f"{n}_weight", part(loss, n).get("weight", 1))) != 0),
        key=lambda n: (n != "ce", n),
    )


def teacher_name(config: Mapping[str, Any]) -> str:
    """Return what the configuration calls its teacher, or `none`."""
    teacher = part(config, "teacher")
    if not teacher or teacher.get("model") is None:
        return "none"
    return text_of(teacher.get("name") or part(teacher, "model").get("backbone") or "teacher", 80)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Tell whether a run learns from labels alone: cross-entropy is its only term, or it has no teacher."""
    return terms(config) == ["ce"] or teacher_name(config) == "none"


def essence(flat: Flat) -> Flat:
    """Return the options that change what a run computes, without its seed."""
    return {key: value for key, value in flat.items() if not _of_place_or_seed(key)}


def _of_place_or_seed(key: str) -> bool:
    first, last = key.split(".")[0], key.rsplit(".", 1)[-1]
    return (
        first in PLACES
        or first == "logger"
        or (first == "callbacks" and not key.startswith(CHANGING))
        or last in ("run_dir", "cache_dir", "num_workers")
        or key in ("seed", "data.seed")
    )


def twin_key(flat: Flat) -> str:
    """Return what a run and its twin have in common: all but loss, teacher and balance. Null says what absence says."""
    shared = {k: v for k, v in essence(flat).items() if k.split(".")[0] not in OF_THE_METHOD}
    return key_of({k: v for k, v in shared.items() if v is not None})


def key_of(flat: Flat) -> str:
    """Return one string for equal options."""
    return json.dumps(flat, sort_keys=True, default=str)


def described(config: Mapping[str, Any], flat: Flat) -> Flat:
    """Return the options as they are compared and shown: the terms and the teacher by name, each weight once."""
    shown = {k: v for k, v in essence(flat).items() if not _said_elsewhere(k, flat)}
    counted = terms(config)
    # What a term of weight 0 is set to changes nothing.
    shown = {k: v for k, v in shown.items() if not _of_dead_term(k, config, counted)}
    # By name, so that a run without one differs from a run with it.
    shown = {k: v for k, v in shown.items() if not k.startswith(CHANGING)}
    for name in CHANGING:
        there = any(key.startswith(name) for key in flat)
        shown[name] = flat.get(f"{name}.decay", "on") if there else "none"
    teacher = teacher_name(config)
    if teacher == "none":
        shown = {k: v for k, v in shown.items() if not k.startswith("teacher.")}
    return {"loss": "+".join(counted) or "none", "teacher": teacher, **shown}


def _said_elsewhere(key: str, flat: Flat) -> bool:
    words = key.split(".")
    return (
        words[-1] == "_partial_"
        or (words[-1] == "_target_" and words[0] in OF_THE_METHOD)
        or (len(words) == 3 and words[0] == "loss" and words[2] == "weight" and f"loss.{words[1]}_weight" in flat)
        or key in ("loss", "teacher")
        or key.startswith("data.recipe.")
    )


def _of_dead_term(key: str, config: Mapping[str, Any], counted: Sequence[str]) -> bool:
    words = key.split(".")
    if words[0] != "loss" or len(words) < 2:
        return False
    name = words[1]
    return isinstance(part(config, "loss").get(name), dict) and name not in counted


def axes(options: Sequence[Flat], chosen: Sequence[str] = ()) -> list[str]:
    """Return the options that differ between runs, those that say the same as another left out.

    Args:
        options: of each run, from `described`.
        chosen: keys of the runs' command lines, which are preferred as names.
    """
    seen: dict[str, set[str]] = {}
    for flat in options:
        for key, value in flat.items():
            seen.setdefault(key, set()).add(str(value))
    differing = [key for key, values in seen.items() if len(values) > 1]
    ranks = {key: i for i, key in enumerate(("loss", "teacher", *chosen))}
    differing.sort(key=lambda k: (ranks.get(k, len(ranks)), k.count("."), len(k), k))
    kept: list[str] = []
    for key in differing:
        if key in ranks or not any(_same(key, k, options) for k in kept):
            kept.append(key)
    return kept


def _same(key: str, other: str, options: Sequence[Flat]) -> bool:
    """Tell whether two options differ between the same runs: one value of one for each value of the other."""
    having = [(str(flat[key]), str(flat.get(other))) for flat in options if key in flat]
    both = set(having)
    return len(both) == len({a for a, _ in both}) == len({b for _, b in both})
