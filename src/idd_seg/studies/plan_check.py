"""Whether a study's file has what a study needs, said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idd_seg.config.groups import options_of
from idd_seg.errors import ConfigError, suggest

# With an example of each, for the one whose file lacks it.
NEEDED = {
    "name": "mine",
    "common": "[data=shapes, teacher.checkpoint=auto]",
    "search": "[data.held_out=5]",
    "factors": "[0.3, 1.0, 3.0]",
    "seeds": "[0, 1, 2]",
    "search_seeds": "[0]",
    "twin": "twin",
    "methods": "{twin: {weights: {ce: 1.0}}, ...}",
}
OF_A_METHOD = ("weights", "scale", "options", "against", "as_long_as")
EXAMPLE = "docs/studies.md, 'A study of your own', has a whole file"


def check_written(node: Mapping[str, Any]) -> None:
    """Refuse a study that lacks a part, and methods that are written otherwise than a method is.

    Args:
        node: the study as plain values.

    Raises:
        ConfigError: for the first thing that is wrong, with its key and what to write instead.
    """
    for key, example in NEEDED.items():
        if node.get(key) is None:
            raise ConfigError(f"the study has no '{key}'; give one, such as {key}: {example} ({EXAMPLE})")
    methods = node["methods"]
    if not isinstance(methods, Mapping) or not methods:
        raise ConfigError(f"study.methods must have a name for each method: {NEEDED['methods']} ({EXAMPLE})")
    for name, method in methods.items():
        _check_method(f"study.methods.{name}", method)


def _check_method(key: str, method: Any) -> None:
    if not isinstance(method, Mapping):
        raise ConfigError(f"{key} must be written as {{weights: {{ce: 1.0, ...}}}}, got '{method}'")
    for word in method:
        if word not in OF_A_METHOD:
            known = ", ".join(OF_A_METHOD)
            raise ConfigError(f"{key} has '{word}', which is none of {known}{suggest(str(word), OF_A_METHOD)}")
    weights = method.get("weights")
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(f"{key} needs the terms and their weights: weights: {{ce: 1.0, ...}} ({EXAMPLE})")
    for term, weight in weights.items():
        if term not in (terms := options_of("loss")):
            raise ConfigError(f"{key}.weights: there is no term '{term}'{suggest(str(term), terms)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float | str):
            raise ConfigError(f"{key}.weights.{term} must be a number, or @NAME of a method before, got '{weight}'")
    for word in ("scale", "options"):
        if not isinstance(method.get(word, []), list | tuple):
            raise ConfigError(f"{key}.{word} must be a list, e.g. [{method[word]}], got '{method[word]}'")
