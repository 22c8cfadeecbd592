"""A configuration that a program asks for, instead of a command line; nothing of Hydra's is left behind in it."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from idd_seg.config.chosen_terms import added_terms
from idd_seg.config.command_line import in_full, refuse_missing
from idd_seg.config.groups import config_dir
from idd_seg.config.messages import explain, refused_by_a_library
from idd_seg.config.unread import refuse_unread
from idd_seg.errors import ConfigError, UserError

PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)
RESERVED = ("null", "true", "false", "inf", "nan")


def words_of_options(texts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Return options of a program as the words of a command line.

    Args:
        texts: words as they are, `loss.kd_weight=0.5`.
        options: by name; a mapping stands for the options inside of a group: `trainer={"max_steps": 9}`.

    Raises:
        ConfigError: for a text that is no option, or a value that no command line could have.
    """
    for text in texts:
        if not isinstance(text, str) or text.startswith("-") or "=" not in text:
            raise ConfigError(
                f"{text!r} is no option; options are written 'option=value', or option=value for names without a dot"
                + ("; sweeps and flags are the command line's" if str(text).startswith("-") else "")
            )
    return [*texts, *(word for name, value in options.items() for word in _words(name, value))]


def _words(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _words(f"{name}.{key}", child)
    else:
        yield f"{name}={_text(name, value)}"


def _text(name: str, value: Any) -> str:
    """Return a value in Hydra's grammar: texts in quotes, so that '1e3' stays one, but for plain names and paths."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return text if PLAIN.fullmatch(text) and text.lower() not in RESERVED else _quoted(text)
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(name, child) for child in value)}]"
    raise ConfigError(
        f"{name}: a value is a number, a text, a path, true, false, None or a list of these, got a "
        f"{type(value).__name__}"
    )


def _quoted(text: str) -> str:
    r"""Return a text in double quotes; backslashes before a quote are doubled, and those elsewhere are not."""
    written, slashes = "", 0
    for sign in text:
        written += "\\" * (slashes + 1) + sign if sign == '"' else sign
        slashes = slashes + 1 if sign == "\\" else 0
    return f'"{written}{chr(92) * slashes}"'


@contextmanager
def composed(words: Sequence[str], config_name: str = "train") -> Iterator[DictConfig]:
    """Give the configuration that these words of a command line make, and leave Hydra as it was before.

    `run_dir` is where the command would put the run, unless the words say it.

    Raises:
        ConfigError: for whatever is wrong with an option, also where a library says so within the context.
    """
    with _hydra_left_as_it_was():
        full = in_full(words, config_name)
        if added := added_terms(words, full):
            print(added, file=sys.stderr)
        try:
            yield _compose(full, config_name)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, config_name, full)) from error
        except UserError:
            raise
        except Exception as error:
            if (refusal := refused_by_a_library(error)) is None:
                raise
            raise ConfigError(refusal) from error


def _compose(words: list[str], config_name: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), job_name=config_name, version_base="1.3"):
        whole = hydra.compose(config_name, words, return_hydra_config=True)
    HydraConfig.instance().set_config(whole)
    made: Any = HydraConfig.get()
    with read_write(made), open_dict(made):
        made.runtime.output_dir = str(Path(made.run.dir).absolute())
    cfg = copy.deepcopy(whole)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    refuse_missing(cfg)
    refuse_unread(cfg, config_name)
    return cfg


@contextmanager
def _hydra_left_as_it_was() -> Iterator[None]:
    """Keep what the program around has of Hydra: it may be an application of Hydra itself."""
    hydra_before, config_before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    version_before = VersionBase.instance().version_base
    try:
        yield
    finally:
        # Hydra's own context manager has put other instances in their places.
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra_before, config_before
        VersionBase.instance().version_base = version_before
