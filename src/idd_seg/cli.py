"""The command line: Hydra, and one clear message for a user's mistake. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from idd_seg.data.class_list import read_class_list
from idd_seg.errors import ConfigError, JobFailed, Pruned, UserError, message_of, suggest

# OpenMP's threads would spin while they wait for each other; where another program takes one of the cores, a training
# step then takes ten times as long. Threads that sleep at once must be woken for each small operation; those of GNU's
# OpenMP look a thousand times first, some microseconds. It is read when PyTorch is loaded, which is after this.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["OMP_WAIT_POLICY"] = "passive"
# albumentations would ask the network for a newer version of itself at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# The one query that wandb sends even when it is offline.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

TRACE = "HYDRA_FULL_ERROR"
HEAD = "head@student.head"
PARTS = ("download",)  # chosen by another choice
WANTS_TRACE = os.environ.get(TRACE) == "1"


def _from_class_list(path: str, field: str) -> Any:
    found = getattr(read_class_list(path), field)
    return OmegaConf.create(found) if isinstance(found, list | dict) else found


# ${class_list:FILE,names}: num_classes and what else other groups read must be known when a configuration is composed.
OmegaConf.register_new_resolver("class_list", _from_class_list, replace=True)


def _job_folder(number: int, options: str) -> str:
    """Name a job's folder after its number and options; file systems take 255 bytes."""
    name = f"{number}_{options}".replace("/", "_")
    return name if len(name.encode()) <= 150 else str(number)


OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)


def _choices(config_name: str) -> str:
    """Return the groups of a command and their choices, for its help."""
    return "\n".join(f"{group}: {', '.join(options_of(group))}" for group in chosen_groups(config_name))


OmegaConf.register_new_resolver("choices", _choices, replace=True)


def config_dir() -> Path:
    """Return the folder of configurations: inside an installed package, or at the top of the repository."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def run(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run `task` with the configuration that `config_name` and the command line make.

    A job of a sweep that fails says why, and the others go on; the process ends with exit code 1 after the last.

    A mistake of the user ends the process with exit code 1 and one message; with HYDRA_FULL_ERROR=1 in the
    environment it shows the stack trace instead.
    """
    # A name of its own, which goes with the task to launchers' processes; there the variable is set as below.
    wants_trace = WANTS_TRACE
    # Hydra would print errors in its own way; asked for the trace, it lets them pass to here.
    os.environ[TRACE] = "1"

    def guarded(cfg: DictConfig) -> Any:
        try:
            _refuse_missing(cfg)
            return task(cfg)
        except (UserError, OmegaConfBaseException, OSError) as error:
            if wants_trace:
                raise
            if _sweeping():
                raise _failed(explain(error, config_name, sys.argv[1:])) from error
            # Not an Exception, so that Hydra adds no message of its own.
            raise SystemExit(_tell(error, config_name)) from error
        except Exception as error:
            if isinstance(error, Pruned) or not _sweeping():
                raise
            traceback.print_exc()
            raise _failed(f"{type(error).__name__}: {error}") from error

    with told(config_name):
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)()


def _refuse_missing(cfg: DictConfig) -> None:
    """Say that an option has no value before seconds are spent on imports."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"the option '{missing[0]}' has no value; give one: {missing[0]}=...")


@contextmanager
def told(config_name: str) -> Iterator[None]:
    """End the process by one message and an exit code where what is done within fails by a mistake of the user."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has gone, as `head` does; the interpreter must not try to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except JobFailed:
        print("error: not all jobs of the sweep have ended well; what failed is said above", file=sys.stderr)
        sys.exit(1)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        if WANTS_TRACE:
            raise
        sys.exit(_tell(error, config_name))
    except ValueError as error:
        # Hydra's own, of an error class that it shares with all the world: `teacher=null`, `logger=true`.
        if WANTS_TRACE or "Config group override" not in str(error):
            raise
        sys.exit(_tell(error, config_name))


def _sweeping() -> bool:
    mode = HydraConfig.get().mode if HydraConfig.initialized() else None
    return mode is not None and mode == RunMode.MULTIRUN


def _failed(message: str) -> JobFailed:
    """Say which job of a sweep failed, and why."""
    job = HydraConfig.get().job
    text = f"job {job.num} ({job.override_dirname}): {message}"
    print(f"error: {text}", file=sys.stderr)
    return JobFailed(text)


def _tell(error: BaseException, config_name: str) -> int:
    print(f"error: {explain(error, config_name, sys.argv[1:])}", file=sys.stderr)
    return 1


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
    if (inside := _inside(key, config_name)) is not None:
        return inside
    known = known_keys(config_name, [a for a in arguments if key not in a])
    near = "" if ".".join(key.split(".")[:2]) in known else _home_of(key)
    return f"there is no option '{key}'{near or suggest(key, known)} --help lists the options"


def _home_of(key: str) -> str:
    """Say which choices of a group have the option, if the chosen ones have not: `loss.kd_weight` with `loss=ce`."""
    group, _, name = key.partition(".")
    having = [o for o in options_of(group) if re.search(rf"^{re.escape(name.split('.')[0])}:", _text(group, o), re.M)]
    return (
        f": it is one of {', '.join(f'{group}={option}' for option in having)}, which is not chosen." if having else ""
    )


def _text(group: str, option: str) -> str:
    return (config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")


def known_keys(config_name: str, overrides: list[str]) -> list[str]:
    """Return all dotted keys of the configuration that the valid overrides make."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, [o for o in overrides if "=" in o and "," not in o])
        except HydraException:
            cfg = hydra.compose(config_name)
    return [*_keys(OmegaConf.to_container(cfg, resolve=False)), *chosen_groups(config_name)]


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield f"{prefix}{name}"
            yield from _keys(child, f"{prefix}{name}.")


def groups() -> list[str]:
    """Return the names of the configuration groups."""
    return sorted(p.name for p in config_dir().iterdir() if p.is_dir() and p.name != "hydra")


def chosen_groups(config_name: str) -> list[str]:
    """Return what a command's `group=option` may choose: the groups of its defaults, and of the files it stands on."""
    text = (config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    found: list[str] = []
    for entry in yaml.safe_load(text).get("defaults", []):
        if isinstance(entry, str):
            found += chosen_groups(entry) if entry != "_self_" else []
        else:
            found += [str(key).rsplit(" ", 1)[-1].removeprefix("/") for key in entry]
    found = [group for group in dict.fromkeys(found) if not group.startswith("hydra") and group not in PARTS]
    return [*found, HEAD] if "student" in found and HEAD not in found else found


def _inside(key: str, config_name: str) -> str | None:
    """Say how a group that other groups take their parts from is chosen; None for another key."""
    if key not in groups() or key in chosen_groups(config_name):
        return None
    if HEAD in chosen_groups(config_name) and key == "head":
        return f"there is no option 'head': a head belongs to a network. The student's: {HEAD}=psp"
    return f"there is no option '{key}': {key}/ holds parts of other files. --help lists what is chosen by itself"


def options_of(group: str) -> list[str]:
    """Return the choices of a group."""
    folder = config_dir() / group.split("@")[0]
    return sorted(p.stem for p in folder.glob("*.yaml")) if folder.is_dir() else []
