"""What was wrong with a command, in words of the command line."""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from idd_seg.config.groups import HEAD, chosen_groups, groups, home_of, known_keys, options_of
from idd_seg.config.other_tools import ours
from idd_seg.errors import UserError, first_line, message_of, suggest


def explain(error: BaseException, config_name: str, arguments: list[str]) -> str:
    """Say what is wrong in words of the command line, with the nearest right name where one is unknown."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return message_of(error)
    if isinstance(error, OverrideParseException) and "=" in error.override:
        return _quoting(error.override)
    if several := re.match(r"Ambiguous value for argument '(.*)'$", text, re.M):
        return _quoting(several[1])
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
    unknown = re.search(r"Could not override '([^']*)'", text)
    if unknown is None and isinstance(error, ConfigKeyError | ConfigAttributeError):
        unknown = re.search(r"full_key: (\S+)", text)
    if unknown and not unknown[1]:
        return "an option has no name; options are written option=value"
    if unknown:
        return _unknown(unknown[1], config_name, arguments)
    if nowhere := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"${{{nowhere[1]}}} refers to an option that is not there; --help=all lists the options"
    if twice := re.search(r"@(\w+)\.(\w+)\.schedule appears more than once", text):
        return f"{twice[1]}=[...] names '{twice[2]}' twice; name it once"
    if word := re.match(r"Error parsing override '([^'=]*)'\nmissing EQUAL", text):
        return f"'{word[1]}' has no value; options are written option=value"
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{error.strerror or error}: '{error.filename}'" if error.filename else text
    return text


LESS_MEMORY = (
    "a smaller batch, smaller pictures or crops and, on a GPU, trainer=gpu need less: "
    "docs/training.md, 'When memory runs out'"
)
TEACHERS = "teacher.training.loss."
PLAIN = "/-_.+$%*@?|: "  # signs that a value may hold without quotes


def _quoting(override: str) -> str:
    """Say how a value is written that Hydra takes for its grammar: what to type, the shell's quotes included."""
    key, _, value = override.partition("=")
    inside = (value[:1], value[-1:]) in (("[", "]"), ("{", "}"))
    harmless = PLAIN + (",[]{}" if inside else "")
    special = [c for c in dict.fromkeys(value) if not (c.isascii() and c.isalnum()) and c not in harmless]
    written = f"{key}={_words_quoted(value) if inside else _quoted(value)}"
    if not _parses(written):
        return (
            f"'{override}' can't be read: options are written option=value, words with special characters in double "
            """quotes, and all of it in the shell's single ones: 'option="a=b"'"""
        )
    several, as_list = "", f"{key}=[{value}]"
    if "," in value and not inside and _parses(as_list):
        several = f"; for a list {shlex.quote(as_list)}; for a sweep add -m"
    return f"{key}: the value {value} needs quotes for {' '.join(special)} in it: type {shlex.quote(written)}{several}"


def _quoted(value: str) -> str:
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', value) + '"'


def _words_quoted(value: str) -> str:
    """Quote the words in a list or a group, as far as they need it."""
    between = r"""[^,\[\]{}:"']*""" if value[0] == "{" else r"""[^,\[\]"']*"""
    pattern = rf"{between}[^\w\s,:\[\]{{}}\"'./-]{between}"
    return re.sub(pattern, lambda found: _in_place(found[0]), value, flags=re.ASCII)


def _in_place(word: str) -> str:
    return word.replace(word.strip(), _quoted(word.strip()))


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def refused_by_a_library(error: BaseException) -> str | None:
    """Return what Lightning refuses, which package is missing, or whose memory, in one line; None for other errors."""
    text = " ".join(str(error).split())[:400]
    if type(error).__name__ == "MisconfigurationException":
        return f"Lightning refuses the options of trainer and callbacks: {text}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name or "").startswith("idd_seg"):
        return f"a package is missing: {text}"
    if type(error).__name__ == "OutOfMemoryError":
        return f"the GPU has not enough memory ({first_line(error)[:200]}); {LESS_MEMORY}"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return f"the machine has not enough memory ({first_line(error)[:200]}); {LESS_MEMORY}"
    return None


def _unknown(key: str, config_name: str, arguments: list[str]) -> str:
    if "@" in key:  # no option of the command line: a choice inside of a file, such as an experiment
        return f"the choices don't go together: one of them sets '{key}', which another leaves out"
    others = [a for a in arguments if key not in a]
    if key.startswith("loss.") and not any(a.startswith("loss=") for a in others):
        others.append("loss=every")  # an option of any term is one, and adds it
    known = known_keys(config_name, others)
    if (inside := _inside(key, config_name, known)) is not None:
        return inside
    if config_name == "train" and (name := ours(key)) is not None:
        return f"there is no option '{key}'{name} --help=all lists the options"
    if key.startswith(TEACHERS) and home_of(f"loss.{key.removeprefix(TEACHERS)}"):
        return f"there is no option '{key}': the teacher's terms are chosen by loss@teacher.training.loss=[...]"
    chosen = key not in known and ".".join(key.split(".")[:2]) in known
    near = "" if chosen else home_of(key)
    return f"there is no option '{key}'{near or suggest(key, known)} --help=all lists the options"


def _inside(key: str, config_name: str, known: list[str]) -> str | None:
    """Say what is done about a group that other files take their parts from; None for another key."""
    if key == "head" and HEAD in chosen_groups(config_name):
        return f"there is no option 'head': a head belongs to a network. The student's: {HEAD}=psp"
    folder = next((group for group in groups() if key in (group, group.rpartition("/")[2])), None)
    if folder is None or folder in chosen_groups(config_name):
        return None
    if "/" not in folder:
        return (
            f"there is no option '{key}': conf/{folder}/ holds choices of other commands. --help=all lists this one's"
        )
    there = [name for name in known if name.rpartition(".")[2] == folder.rpartition("/")[2]]
    return (
        f"there is no option '{key}': conf/{folder}/ holds parts of other files"
        f"{f'; what they say stands in {there[0]}' if there else ''}. --help=all lists what is chosen by itself"
    )
