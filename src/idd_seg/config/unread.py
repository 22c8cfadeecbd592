"""Options that nothing reads: they are refused, instead of being of no effect. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.groups import chosen_groups, config_dir, home_of
from idd_seg.config.other_tools import ours
from idd_seg.errors import ConfigError, suggest

TARGET = "_target_"
# Groups whose files write into the whole configuration, by `# @package _global_`.
GLOBAL = ("experiment", "hparams")
# Groups that take any number of nodes by any names, each with a `_target_`.
COLLECTIONS = ("callbacks", "logger")
# Where nodes without a `_target_` stand below a group, and the folders whose files declare what is in them.
BELOW: dict[str, tuple[str, ...]] = {
    "teacher": ("teacher", "parts/frozen"),
    "data.recipe": ("parts/recipe",),
}
# Groups whose choice is all that they are: other files take it in their defaults.
CHOICES_ALONE = ("teacher_optimizer",)
TRAINING = ("loss", "optimizer", "scheduler")  # groups that `teacher.training` takes in


def refuse_unread(cfg: DictConfig, config_name: str) -> None:
    """Refuse an option that no file of `conf/` declares, no constructor takes, and no other option refers to.

    Raises:
        ConfigError: that names it, with the nearest right name.
    """
    if not (config_dir() / f"{config_name}.yaml").is_file():
        return  # a main file of the user's own, of whose keys nothing is known
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    known = _root(config_name)
    for key, near in _unread(plain, known, config_name):
        if not _referred(key, plain):
            raise ConfigError(_message(key, near))


def _message(key: str, near: list[str]) -> str:
    group = key.partition(".")[0]
    if group in GLOBAL:
        return (
            f"the file of {group}={_choice(group)} changes nothing: what it says is read as '{key}'. Make "
            "'# @package _global_' its first line"
        )
    hint = ours(key) or (home_of(key) if group == "loss" else "") or suggest(key, near)
    return f"nothing reads the option '{key}'{hint} --help=all lists the options"


def _choice(group: str) -> str:
    chosen = HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
    return str(chosen or "...")


def _root(config_name: str) -> dict[str, Any]:
    """Return what a command's own file declares, with that of the files it stands on."""
    node: dict[str, Any] = yaml.safe_load((config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            found |= _root(entry)
    return found | node


def _unread(plain: Mapping[str, Any], known: Mapping[str, Any], config_name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys that nothing reads, and those that may have been meant."""
    groups = [group for group in chosen_groups(config_name) if "@" not in group and group not in GLOBAL]
    names = [*known, *groups]
    for key, value in plain.items():
        if key == "download" and config_name == "prepare":
            continue
        if key in groups:
            yield from _unread_in_group(key, value)
        elif key not in known:
            yield key, names
        else:
            yield from _unread_below(key, value, known[key])


def _unread_below(where: str, value: Any, declared: Any) -> Iterator[tuple[str, list[str]]]:
    """Look into a group of options that a command's own file declares; an empty one takes any."""
    if not isinstance(value, Mapping) or not isinstance(declared, Mapping) or not declared or TARGET in declared:
        return
    for key, child in value.items():
        if key not in declared:
            yield f"{where}.{key}", [f"{where}.{name}" for name in declared]
        else:
            yield from _unread_below(f"{where}.{key}", child, declared[key])


def _unread_in_group(group: str, node: Any) -> Iterator[tuple[str, list[str]]]:
    if group in CHOICES_ALONE and node is not None:
        yield group, []
    if not isinstance(node, Mapping) or group in CHOICES_ALONE:
        return
    if group == "loss":
        yield from _unread_terms("loss", node)
    elif group in COLLECTIONS:
        for name, child in node.items():
            if not (isinstance(child, Mapping) and TARGET in child):
                yield f"{group}.{name}", []
    elif group == "teacher":
        yield from _unread_here("teacher", node)
        training = node.get("training")
        if isinstance(training, Mapping):
            declared = [*_declared(("parts/frozen",), "training"), *TRAINING]
            for key in training:
                if key not in declared:
                    yield f"teacher.training.{key}", [f"teacher.training.{name}" for name in declared]
            yield from _unread_terms("teacher.training.loss", training.get("loss"))
    elif group == "data" and isinstance(node.get("recipe"), Mapping):
        yield from _unread_here("data.recipe", node["recipe"])
    elif group not in ("data", "study") and node and TARGET not in node:
        for key in node:
            yield f"{group}.{key}", []


def _unread_terms(where: str, node: Any) -> Iterator[tuple[str, list[str]]]:
    """A term is a node beside its weight; one of them alone does nothing."""
    for name, child in node.items() if isinstance(node, Mapping) else ():
        term = name.removesuffix("_weight")
        is_term = isinstance(child, Mapping) and TARGET in child and f"{name}_weight" in node
        if not (is_term or (term != name and isinstance(node.get(term), Mapping))):
            yield f"{where}.{name}", [f"{where}.{other}" for other in node]


def _unread_here(where: str, node: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    declared = _declared(BELOW[where])
    for key in node:
        if key not in declared:
            yield f"{where}.{key}", [f"{where}.{name}" for name in declared]


def _declared(folders: tuple[str, ...], below: str | None = None) -> list[str]:
    """Return the keys of the files of some folders, or those below one of their keys."""
    found: list[str] = []
    for folder in folders:
        for path in sorted((config_dir() / folder).glob("*.yaml")):
            node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if folder != "parts/frozen" or "name" in node:  # a teacher, and not how its pictures are normalised
                found += (node.get(below) or {}) if below else node
    return [key for key in dict.fromkeys(found) if key != "defaults"]


def _referred(key: str, plain: Mapping[str, Any]) -> bool:
    """Tell whether another option takes its value from this one: `optimizer.lr=${my_rate}`."""
    wanted = re.compile(rf"\$\{{[^}}]*(?<![\w.]){re.escape(key)}(?!\w)")
    return any(wanted.search(text) for text in _texts(plain))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for child in node.values():
            yield from _texts(child)
    elif isinstance(node, list):
        for child in node:
            yield from _texts(child)
    elif isinstance(node, str):
        yield node
