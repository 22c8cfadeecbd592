"""Options of a wrong type: told by their names, before a constructor stumbles over them in its own words."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import OmegaConf

from idd_seg.errors import ConfigError
from idd_seg.ops.private_api import is_protocol

TARGET = "_target_"
OWN = "idd_seg."
UNIONS = (types.UnionType, Union)
LISTS = (list, tuple, Sequence, Iterable)
MAPPINGS = (dict, Mapping)
PLAIN: dict[Any, Any] = {bool: bool, str: str, Path: (str, Path), type(None): None, None: None}
WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "values true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a word", "words"),
    Path: ("a path", "paths"),
    type(None): ("null", "nulls"),
    None: ("null", "nulls"),
}


def check_types(node: Any, where: str) -> None:
    """Compare the options of a node, and of the nodes inside it, with the types that their constructors declare.

    Args:
        node: a part of the configuration; what has no `_target_` is looked through.
        where: its key, as the command line has it.

    Raises:
        ConfigError: that names the first option of a wrong type, and the right one.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if isinstance(plain, Mapping):
        hints = _hints(str(plain[TARGET])) if TARGET in plain else {}
        for key, value in plain.items():
            name = f"{where}.{key!s}"
            if key in hints and not fits(value, hints[key]):
                raise ConfigError(
                    f"{name} must be {words(hints[key])}, got {_shown(value)}{_as_text(name, value, hints[key])}"
                )
            check_types(value, name)
    elif isinstance(plain, list | tuple):
        for child in plain:
            check_types(child, where)


def _hints(target: str) -> dict[str, Any]:
    """Return the declared types of a constructor's options; of a class also those that it hands to its bases."""
    try:
        found = get_object(target)
        if not inspect.isclass(found):
            return get_type_hints(found)
        hints: dict[str, Any] = {}
        for base in found.__mro__:
            constructor = vars(base).get("__init__")
            if constructor is None:
                continue
            # A constructor that takes a group of options as keywords names the dataclass that declares them.
            declared = get_type_hints(vars(base)["OPTIONS"]) if "OPTIONS" in vars(base) else {}
            hints = {**declared, **get_type_hints(constructor), **hints}
            if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values()):
                break
        return hints
    except Exception:  # a missing package, or names that are known to type checkers alone: the constructor will tell
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a plain value may be of a declared type; yes where that can't be known."""
    if isinstance(value, Mapping) and TARGET in value:
        return True  # it will be an object by then
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in UNIONS:
        return any(fits(value, one) for one in inner)
    if kind is Literal:
        return value in inner
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in PLAIN:
        return value is None if kind in (None, type(None)) else isinstance(value, PLAIN[kind])
    if kind in LISTS:
        return isinstance(value, list | tuple) and _all_fit(value, kind, inner)
    if kind in MAPPINGS:
        return isinstance(value, Mapping)
    # An object of ours is made from a node with a `_target_`; of others' classes nothing is known.
    ours = inspect.isclass(kind) and kind.__module__.startswith(OWN) and not is_protocol(kind)
    return not ours


def _all_fit(values: Sequence[Any], kind: Any, inner: Sequence[Any]) -> bool:
    if kind is tuple and inner and Ellipsis not in inner:
        return len(values) == len(inner) and all(fits(v, one) for v, one in zip(values, inner, strict=True))
    return all(fits(value, one) for value in values for one in inner[:1])


def words(hint: Any, *, many: bool = False) -> str:
    """Say a declared type in a user's words."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in UNIONS:
        return " or ".join(dict.fromkeys(words(one, many=many) for one in inner))
    if kind is Literal:
        return " or ".join(str(one) for one in inner)
    if kind in WORDS:
        return WORDS[kind][many]
    if kind in LISTS:
        number = f" {len(inner)}" if kind is tuple and inner and Ellipsis not in inner else ""
        what = f" of{number} {words(inner[0], many=True)}" if inner and inner[0] is not Any else ""
        return f"{'lists' if many else 'a list'}{what}"
    if kind in MAPPINGS:
        return "groups of options" if many else "a group of options"
    return "groups of options with a _target_" if many else "a group of options with a _target_"


def _as_text(name: str, value: Any, hint: Any) -> str:
    """Say how a number is given as the text that is wanted."""
    kinds = get_args(hint) if (get_origin(hint) or hint) in UNIONS else (hint,)
    if type(value) not in (int, float) or not {str, Path} & set(kinds):
        return ""
    return f"; as text: '{name}=\"{value}\"'"


def _shown(value: Any) -> str:
    """Return a value as the command line would have it."""
    if isinstance(value, Mapping | list | tuple):
        text = str(value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return "null" if value is None else f"'{value}'"
