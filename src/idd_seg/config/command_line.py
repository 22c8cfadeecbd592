"""The command line: Hydra, and one clear message for a user's mistake. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from idd_seg.config.chosen_terms import added_terms, with_their_terms
from idd_seg.config.groups import chosen_groups, config_dir, options_of
from idd_seg.config.help import asks_for_help, help_text
from idd_seg.config.messages import explain, refused_by_a_library
from idd_seg.config.unread import refuse_unread
from idd_seg.data.pipeline.class_list import read_class_list
from idd_seg.errors import ConfigError, JobFailed, Pruned, UserError
from idd_seg.models.pretrained.weights import check_weight_path, refuse_run_folder
from idd_seg.ops.said_once import each_line_once

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

# What is still to be said of a sweep of which jobs have failed; Hydra ends it without a word to its callbacks.
after_failed_jobs: list[Callable[[], None]] = []

TRACE = "HYDRA_FULL_ERROR"
WANTS_TRACE = os.environ.get(TRACE) == "1"


def _from_class_list(path: str, field: str) -> Any:
    found = getattr(read_class_list(path), field)
    return OmegaConf.create(found) if isinstance(found, list | dict) else found


# ${class_list:FILE,names}: num_classes and what else other groups read must be known when a configuration is composed.
OmegaConf.register_new_resolver("class_list", _from_class_list, replace=True)


def _for_optimizer(target: str | None, recipe: Mapping[str, Any], key: str) -> Any:
    """Return what a recipe has for an optimizer, which it calls by its class: sgd for torch.optim.SGD."""
    table = recipe.get(key)
    if not isinstance(table, Mapping):
        return table  # a number is for any optimizer
    name = str(target).rpartition(".")[2].lower()
    return next((value for known, value in table.items() if str(known).lower() == name), None)


# ${for_optimizer:TARGET,RECIPE,KEY}: null for an optimizer that the recipe's table does not have.
OmegaConf.register_new_resolver("for_optimizer", _for_optimizer, replace=True)


def _job_folder(number: int, options: str, sweep: str | None = None) -> str:
    """Name a job's folder after its number and options; file systems take 255 bytes.

    The name is a value of the command line that needs no quotes: letters, digits and a few signs.

    Args:
        sweep: the folder of the sweep, in which a folder of this job as earlier versions named it is taken.
    """
    before = f"{number}_{options}".replace("/", "_")
    before = before if len(before.encode()) <= 150 else str(number)
    if sweep is not None and (Path(sweep) / before).is_dir():
        return before
    words = re.sub(r"[^\w.-]+", "_", options.replace("=", "-"), flags=re.ASCII)
    name = f"{number}_{re.sub(r'_*-_*', '-', words).strip('_-')}"
    return name if len(name) <= 150 else str(number)


OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)


# Short names of a command's options. In `compare` Hydra takes `teacher=PATH` for a choice of the group of this name,
# which is one of a training's alone.
SHORT = {"compare": {"teacher": "teacher.checkpoint"}, "train": {"lr": "optimizer.lr", "batch": "data.batch_size"}}
FROM_FILE = "checkpoint"
# Commands whose `checkpoint` is a file of a run, or an exported folder; with label's teacher=NAME it is the teacher's.
OF_A_RUN = ("evaluate", "export", "label", "predict")
# What begins a path, or ends a checkpoint's name; the choices of `teacher` are words.
PATH = re.compile(r"[./~'\"].*|.*/.*|.*\.(ckpt|pt|pth|safetensors)['\"]?", re.DOTALL)


# Options whose value is a text, by the last part of their names: Hydra would take `data.root=1e3` for 1000.0.
TEXTS = (
    *("root", "name", "classes", "weights", "checkpoint", "dir", "run_dir", "output_dir", "cache_dir"),
    *("input", "output"),
)


def in_full(words: Sequence[str], config_name: str) -> list[str]:
    """Return the words of a command line as Hydra takes them.

    Short names are written in full, texts that look like numbers in quotes, and options of a term that is not chosen
    choose it.
    """
    full = [full for word in words for full in _teacher_file(_in_full(word, config_name))]
    return with_their_terms(full, config_name)


def _in_full(word: str, config_name: str) -> str:
    name, sign, value = word.partition("=")
    if name.split(".")[-1] in TEXTS and _is_number(value):
        value = f"'{value}'"
    return f"{SHORT.get(config_name, {}).get(name, name)}{sign}{value}"


def _teacher_file(word: str) -> list[str]:
    """Return `teacher=PATH` as the two options that it stands for."""
    name, _, value = word.partition("=")
    if name != "teacher" or not PATH.fullmatch(value):
        return [word]
    return [f"teacher={FROM_FILE}", f"teacher.checkpoint={value}"]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _choices(config_name: str) -> str:
    """Return the groups of a command and their choices, for its help."""
    return "\n".join(f"{group}: {', '.join(options_of(group))}" for group in chosen_groups(config_name))


OmegaConf.register_new_resolver("choices", _choices, replace=True)


def run(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Run `task` with the configuration that `config_name` and the command line make.

    A job of a sweep that fails says why, and the others go on; the process ends with exit code 1 after the last.

    A mistake of the user ends the process with exit code 1 and one message; with HYDRA_FULL_ERROR=1 in the
    environment it shows the stack trace instead.
    """
    with told(config_name):
        words, sys.argv[1:] = sys.argv[1:], in_full(sys.argv[1:], config_name)
    if added := added_terms(words, sys.argv[1:]):
        print(added, file=sys.stderr)
    # A name of its own, which goes with the task to launchers' processes; there the variable is set as below.
    wants_trace = WANTS_TRACE
    # Hydra would print errors in its own way; asked for the trace, it lets them pass to here.
    os.environ[TRACE] = "1"

    def guarded(cfg: DictConfig) -> Any:
        try:
            refuse_missing(cfg)
            refuse_unread(cfg, config_name)
            refuse_no_file(cfg, config_name)
            with each_line_once():
                return task(cfg)
        except (UserError, OmegaConfBaseException, OSError) as error:
            if wants_trace:
                raise
            if _sweeping():
                raise _failed(explain(error, config_name, sys.argv[1:])) from error
            # Not an Exception, so that Hydra adds no message of its own.
            raise SystemExit(_tell(error, config_name)) from error
        except Exception as error:
            if not wants_trace and (refusal := refused_by_a_library(error)) is not None:
                if _sweeping():
                    raise _failed(refusal) from error
                raise SystemExit(_tell(ConfigError(refusal), config_name)) from error
            if isinstance(error, Pruned) or not _sweeping():
                raise
            traceback.print_exc()
            raise _failed(f"{type(error).__name__}: {error}") from error

    with told(config_name):
        if asks_for_help(sys.argv[1:]):
            print(help_text(config_name, sys.argv[1:]))
            return
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)()


def refuse_missing(cfg: DictConfig) -> None:
    """Say that an option has no value before seconds are spent on imports."""
    # Unresolved where a class list, to which options refer, comes into being by what is run.
    unresolved = OmegaConf.select(cfg, "classes") is not None
    found = _missing(OmegaConf.to_container(cfg, resolve=False), "") if unresolved else OmegaConf.missing_keys(cfg)
    if missing := sorted(found):
        raise ConfigError(f"the option '{missing[0]}' has no value; give one: {missing[0]}=...")


def refuse_no_file(cfg: DictConfig, config_name: str) -> None:
    """Say that a checkpoint is not there before seconds are spent on imports; its content is for who reads it."""
    if config_name not in OF_A_RUN or OmegaConf.select(cfg, "teacher.name") not in (None, "none"):
        return
    path = Path(str(cfg.checkpoint)).expanduser()
    if path.is_dir():
        refuse_run_folder(path)
    else:
        check_weight_path(str(cfg.checkpoint))


def _missing(node: Any, name: str) -> Iterator[str]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _missing(value, f"{name}.{key}" if name else str(key))
    elif node == "???":
        yield name


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
        for say in after_failed_jobs:
            say()
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
