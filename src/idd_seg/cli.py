"""The command line: Hydra, and one clear message for a user's mistake. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from idd_seg.errors import UserError, message_of, suggest

# albumentations would ask the network for a newer version of itself at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# The one query that wandb sends even when it is offline.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

TRACE = "HYDRA_FULL_ERROR"


def config_dir() -> Path:
    """Return the folder of configurations: beside the code in an installed package, else at the top of the repository."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def run(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run `task` with the configuration that `config_name` and the command line make.

    A mistake of the user ends the process with exit code 1 and one message; with HYDRA_FULL_ERROR=1 in the environment it
    shows the stack trace instead.
    """
    wants_trace = os.environ.get(TRACE) == "1"
    # Hydra would print errors in its own way; asked for the trace, it lets them pass to here.
    os.environ[TRACE] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(task)()
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if wants_trace:
            raise
        _stop(explain(error, config_name, sys.argv[1:]), 1)


def _stop(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str:
    """Say what is wrong in words of the command line, with the nearest right name where one is unknown."""
    if isinstance(error, UserError):
        return message_of(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}: '{error.filename}'" if error.filename else str(error)
    text = str(error).strip()
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if unknown and "not in struct" in f"{text}{error.__cause__}":
        key = unknown[1]
        known = known_keys(config_name, [a for a in arguments if key not in a])
        return f"there is no option '{key}'{suggest(key, known)} --help lists the options"
    if group := re.search(r"Could not override '([^']+)'\.?\s*No match in the defaults list", text):
        return f"there is no option or group '{group[1]}'{suggest(group[1], groups())} --help lists the groups"
    if choice := re.search(r"Could not find '([^']+)'", text):
        group_name, _, name = choice[1].rpartition("/")
        options = options_of(group_name)
        return f"there is no {group_name}={name}{suggest(name, options)} The choices are {', '.join(options)}"
    return text


def known_keys(config_name: str, overrides: list[str]) -> list[str]:
    """Return all dotted keys of the configuration that the valid overrides make."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, [o for o in overrides if "=" in o and "," not in o])
        except HydraException:
            cfg = hydra.compose(config_name)
    return [*_keys(OmegaConf.to_container(cfg, resolve=False)), *groups()]


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def groups() -> list[str]:
    """Return the names of the configuration groups."""
    return sorted(p.name for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")


def options_of(group: str) -> list[str]:
    """Return the choices of a group."""
    folder = config_dir() / group
    return sorted(p.stem for p in folder.glob("*.yaml")) if folder.is_dir() else []
