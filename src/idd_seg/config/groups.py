"""The groups of the configuration, and what may be chosen of them. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf

HEAD = "head@student.head"
PARTS = "parts"  # the folder of what other files take in, and nobody chooses by itself


def config_dir() -> Path:
    """Return the folder of configurations: inside an installed package, or at the top of the repository."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def text_of(group: str, option: str) -> str:
    return (config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")


def known_keys(config_name: str, overrides: list[str]) -> list[str]:
    """Return all dotted keys of the configuration that the valid overrides make."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, [o for o in overrides if "=" in o and is_single(o)])
        except HydraException:
            cfg = hydra.compose(config_name)
    return [*_keys(OmegaConf.to_container(cfg, resolve=False)), *chosen_groups(config_name)]


def is_single(word: str) -> bool:
    """Return whether an option has one value, which may be a list, and not those of a sweep."""
    return "," not in word or "=[" in word


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def groups() -> list[str]:
    """Return the names of all groups, as `loss`, `parts/augment` and `study/methods`; Hydra's own are left out."""
    folders = {path.parent.relative_to(config_dir()).as_posix() for path in config_dir().glob("*/**/*.yaml")}
    return sorted(name for name in folders if name.split("/")[0] != "hydra")


def chosen_groups(config_name: str) -> list[str]:
    """Return what a command's `group=option` may choose: the groups of its defaults, and of the files it stands on."""
    text = (config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    found: list[str] = []
    for entry in yaml.safe_load(text).get("defaults", []):
        if isinstance(entry, str):
            found += chosen_groups(entry) if entry != "_self_" else []
        else:
            found += [str(key).rsplit(" ", 1)[-1].removeprefix("/") for key in entry]
    found = [group for group in dict.fromkeys(found) if group.split("/")[0] not in ("hydra", PARTS)]
    return [*found, HEAD] if "student" in found and HEAD not in found else found


def options_of(group: str) -> list[str]:
    """Return the choices of a group."""
    folder = config_dir() / group.split("@")[0]
    return sorted(p.stem for p in folder.glob("*.yaml")) if folder.is_dir() else []


def home_of(key: str) -> str:
    """Say which choices of a group have the option, if the chosen ones have not: `loss.kd_weight` with `loss=ce`."""
    group, _, name = key.partition(".")
    having = [o for o in options_of(group) if re.search(rf"^{re.escape(name.split('.')[0])}:", text_of(group, o), re.M)]
    if not having:
        return ""
    several = f"; name it in {group}=[...]" if group == "loss" else ""
    return f": it is one of {', '.join(f'{group}={option}' for option in having)}, which is not chosen{several}."


# loss=every: all files of the group, for benchmarks. A new term is measured without being entered in a list.
ConfigStore.instance().store("every", {"defaults": [*options_of("loss"), "_self_"]}, group="loss")
