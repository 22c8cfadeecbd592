"""An option of a distillation term that is not chosen chooses it: `loss.idd_weight=0.5` says that `idd` is wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from idd_seg.config.groups import chosen_groups, config_dir, is_single, options_of

GROUP = "loss"
OPTION = re.compile(rf"\+*{GROUP}\.(?P<name>\w+?)(_weight|\..+)")
# Groups whose files choose terms.
BRINGING = ("experiment", "hparams")
# A flag of Hydra with the folder of more configurations, which may choose terms.
FOLDER = re.compile(r"(--config-dir|-cd)(=(?P<path>.*))?", re.DOTALL)


def with_their_terms(words: Sequence[str], config_name: str) -> list[str]:
    """Return the words of a command line, and behind them `loss=[...]` where they set options of terms not chosen.

    Words that choose `loss` themselves stay as they are, and so do those that are wrong otherwise: Hydra says why.
    """
    words = list(words)
    if GROUP not in chosen_groups(config_name) or any(_name(word) == GROUP for word in words):
        return words
    wanted = _terms_of(words)
    chosen = _chosen(words, config_name) if wanted else None
    if chosen is None or not (missing := [term for term in wanted if term not in chosen]):
        return words
    return [*words, f"{GROUP}=[{','.join([*chosen, *missing])}]"]


def added_terms(words: Sequence[str], full: Sequence[str]) -> str | None:
    """Return the line that says what was added to the terms of a command; None where nothing was."""
    choice = next((word for word in full if _name(word) == GROUP), None)
    if choice is None or any(_name(word) == GROUP for word in words):
        return None
    return f"terms: {choice}, with those whose options are given; {GROUP}=[...] chooses others"


def _name(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _terms_of(words: Sequence[str]) -> list[str]:
    having = set(options_of(GROUP))
    found = (OPTION.fullmatch(word.partition("=")[0]) for word in words if "=" in word)
    return list(dict.fromkeys(match["name"] for match in found if match and match["name"] in having))


def _chosen(words: Sequence[str], config_name: str) -> list[str] | None:
    """Return the terms that the other words choose; None if they make no configuration, or several."""
    # Values alone need not be right here. Of a sweep's choices each may bring terms of its own.
    choices = [word for word in words if "=" in word and _name(word) in chosen_groups(config_name)]
    if not all(is_single(word) for word in choices if _name(word) in BRINGING):
        return None
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            single = [word for word in choices if is_single(word)]
            cfg = hydra.compose(config_name, [*single, *_more_folders(words)])
    except (HydraException, OmegaConfBaseException):
        return None
    terms = cfg.get(GROUP)
    return [str(key) for key in terms if isinstance(terms.get(key), DictConfig)] if terms else None


def _more_folders(words: Sequence[str]) -> list[str]:
    """Return Hydra's option for the folders that `--config-dir` names."""
    paths: list[str] = []
    for number, word in enumerate(words):
        if match := FOLDER.fullmatch(word):
            paths += [match["path"]] if match["path"] else list(words[number + 1 : number + 2])
    return [f"hydra.searchpath=[{','.join(_quoted(path) for path in paths)}]"] if paths else []


def _quoted(path: str) -> str:
    text = f"file://{Path(path).absolute()}".replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
