"""What was wrong with a command, in words of the command line."""

from __future__ import annotations

import re

from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from idd_seg.config.groups import HEAD, chosen_groups, groups, known_keys, options_of, text_of
from idd_seg.errors import UserError, message_of, suggest


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str:
    """Say what is wrong in words of the command line, with the nearest right name where one is unknown."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return message_of(error)
    if inner := re.match(r"(?:Data|Config)Error raised while resolving interpolation: (.*)", text):
        return inner[1]
    missing = re.search(r"Missing mandatory value: ([\w.]+)", text)
    if missing or isinstance(error, MissingMandatoryValue):
        key = missing[1] if missing else error.full_key  # type: ignore[attr-defined]
        return f"the option '{key}' has no value; give one: {key}=..."
    if choice := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        group, name = choice.groups()
        options = options_of(group)
        return f"there is no {group}={name}{suggest(name, options)} The choices are {', '.join(options)}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is None and isinstance(error, ConfigKeyError | ConfigAttributeError):
        unknown = re.search(r"full_key: (\S+)", text)
    if unknown:
        return _unknown(unknown[1], config_name, arguments)
    if twice := re.search(r"@(\w+)\.(\w+)\.schedule appears more than once", text):
        return f"{twice[1]}=[...] names '{twice[2]}' twice; name it once"
    if word := re.match(r"Error parsing override '([^'=]*)'\nmissing EQUAL", text):
        return f"'{word[1]}' has no value; options are written option=value"
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{error.strerror or error}: '{error.filename}'" if error.filename else text
    return text


def _unknown(key: str, config_name: str, arguments: list[str]) -> str:
    if "@" in key:  # no option of the command line: a choice inside of a file, such as an experiment
        return f"the choices don't go together: one of them sets '{key}', which another leaves out"
    known = known_keys(config_name, [a for a in arguments if key not in a])
    if (inside := _inside(key, config_name, known)) is not None:
        return inside
    near = "" if ".".join(key.split(".")[:2]) in known else _home_of(key)
    return f"there is no option '{key}'{near or suggest(key, known)} --help lists the options"


def _home_of(key: str) -> str:
    """Say which choices of a group have the option, if the chosen ones have not: `loss.kd_weight` with `loss=ce`."""
    group, _, name = key.partition(".")
    having = [o for o in options_of(group) if re.search(rf"^{re.escape(name.split('.')[0])}:", text_of(group, o), re.M)]
    return (
        f": it is one of {', '.join(f'{group}={option}' for option in having)}, which is not chosen." if having else ""
    )


def _inside(key: str, config_name: str, known: list[str]) -> str | None:
    """Say what is done about a group that other files take their parts from; None for another key."""
    if key == "head" and HEAD in chosen_groups(config_name):
        return f"there is no option 'head': a head belongs to a network. The student's: {HEAD}=psp"
    folder = next((group for group in groups() if key in (group, group.rpartition("/")[2])), None)
    if folder is None or folder in chosen_groups(config_name):
        return None
    if "/" not in folder:
        return f"there is no option '{key}': conf/{folder}/ holds choices of other commands. --help lists this one's"
    there = [name for name in known if name.rpartition(".")[2] == folder.rpartition("/")[2]]
    return (
        f"there is no option '{key}': conf/{folder}/ holds parts of other files"
        f"{f'; what they say stands in {there[0]}' if there else ''}. --help lists what is chosen by itself"
    )
