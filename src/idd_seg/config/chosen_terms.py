"""An option of a distillation term that is not chosen chooses it: `loss.idd_weight=0.5` says that `idd` is wanted."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from idd_seg.config.groups import chosen_groups, config_dir, options_of

GROUP = "loss"
OPTION = re.compile(rf"\+*{GROUP}\.(?P<name>\w+?)(_weight|\..+)?")
# Groups whose files choose terms.
BRINGING = ("experiment", "hparams")
# Flags of Hydra with the folder of more configurations, another main file, and a folder in place of ours.
MORE = ("--config-dir", "-cd")
MAIN = ("--config-name", "-cn")
ELSEWHERE = ("--config-path", "-cp")
SEARCH_PATH = "hydra.searchpath"


def with_their_terms(words: Sequence[str], config_name: str) -> list[str]:
    """Return the words of a command line, with `loss=[...]` among them where they set options of terms not chosen.

    Words that choose `loss` themselves stay as they are, and so do those that are wrong otherwise: Hydra says why.
    """
    words = list(words)
    if not _named(words) or GROUP not in chosen_groups(config_name) or _choice(words) or _values(words, ELSEWHERE):
        return words
    main = (_values(words, MAIN) or [config_name])[-1].removesuffix(".yaml")
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings(), hydra.initialize_config_dir(str(_home(main, words)), version_base="1.3"):
            warnings.simplefilter("ignore")
            missing = _missing(words, main, GlobalHydra.instance().config_loader(), config_name)
    except Exception:  # whatever is wrong with words or files: Hydra meets it once more, and it is said there
        return words
    if not missing:
        return words
    # Among the options: of those that stand apart from each other, with flags between, Hydra refuses all but the first.
    place = next(number for number, word in enumerate(words) if _named([word]))
    return [*words[:place], f"{GROUP}=[{','.join(missing)}]", *words[place:]]


def added_terms(words: Sequence[str], full: Sequence[str]) -> str | None:
    """Return the line that says what was added to the terms of a command; None where nothing was."""
    choice = _choice(full)
    if choice is None or _choice(words):
        return None
    return f"terms: {choice}, with those whose options are given; {GROUP}=[...] chooses others"


def _choice(words: Sequence[str]) -> str | None:
    """Return the word that chooses the terms; what stands behind a flag, as in `--package loss`, is none."""
    return next((w for w in words if _is_option(w) and w.partition("=")[0].lstrip("+~") == GROUP), None)


def _is_option(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith("~"))


def _named(words: Sequence[str]) -> list[str]:
    """Return what stands where options have the name of a term."""
    found = (OPTION.fullmatch(word.partition("=")[0]) for word in words if _is_option(word))
    return list(dict.fromkeys(match["name"] for match in found if match))


def _values(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Return the values of a flag: `--config-dir PATH` or `--config-dir=PATH`."""
    found: list[str] = []
    for word, behind in itertools.pairwise([*words, ""]):
        flag, sign, value = word.partition("=")
        if flag in flags:
            found.append(value if sign else behind)
    return found


def _missing(words: Sequence[str], main: str, loader: ConfigLoader, config_name: str) -> list[str]:
    """Return the chosen terms with those that are named and not chosen; none where nothing is missing.

    Of a sweep's choices each may bring terms of its own; if they differ, nothing is said here.
    """
    folders = _more_folders(words)
    known = loader.get_group_options(GROUP, config_name=main, overrides=folders)
    wanted = [name for name in _named(words) if name in known]
    if not wanted:
        return []
    parsed = OverridesParser.create(loader).parse_overrides([word for word in words if _is_option(word)])
    single = [str(o.input_line) for o in parsed if not o.is_sweep_override() and o.key_or_group != SEARCH_PATH]
    sweeps = [_choices(o) for o in parsed if o.is_sweep_override() and _brings(o, config_name)]
    found = {_terms([*folders, *single, *more], main, loader) for more in itertools.product(*sweeps)}
    if len(found) != 1:
        return []
    (chosen,) = found
    added = [name for name in wanted if name not in chosen] if "every" not in chosen else []
    return [*chosen, *added] if added else []


def _choices(sweep: Override) -> list[str]:
    return [f"{sweep.get_key_element()}={choice}" for choice in sweep.sweep_string_iterator()]


def _brings(sweep: Override, config_name: str) -> bool:
    """Tell whether what a sweep chooses may choose terms: of the other groups' files that come with us none does."""
    group = sweep.key_or_group
    if group not in chosen_groups(config_name):
        return False
    return group in BRINGING or any(choice not in options_of(group) for choice in sweep.sweep_string_iterator())


def _terms(overrides: list[str], main: str, loader: ConfigLoader) -> tuple[str, ...]:
    """Return the files of the group that these words choose."""
    return tuple(_files(loader.compute_defaults_list(main, overrides, RunMode.RUN).defaults))


def _files(defaults: Sequence[object]) -> Iterator[str]:
    for entry in defaults:
        group, _, name = str(getattr(entry, "config_path", None)).rpartition("/")
        nested = str(getattr(entry, "parent", None)).startswith(f"{GROUP}/")
        if group == GROUP == getattr(entry, "package", None) and not nested:
            yield name


def _home(main: str, words: Sequence[str]) -> Path:
    """Return the folder in which the main file lies: Hydra finds none in those of its option."""
    folders = [config_dir(), *(Path(path).absolute() for path in _values(words, MORE))]
    return next((folder for folder in folders if (folder / f"{main}.yaml").is_file()), folders[0])


def _more_folders(words: Sequence[str]) -> list[str]:
    """Return Hydra's option for our folder, and those that `--config-dir` and the option itself name."""
    folders = [_quoted(path) for path in (str(config_dir()), *_values(words, MORE))]
    given = [word.partition("=")[2].strip() for word in words if word.partition("=")[0] == SEARCH_PATH]
    folders += [value[1:-1] for value in given if value[1:-1].strip() and value.startswith("[")]
    return [f"{SEARCH_PATH}=[{','.join(folders)}]"]


def _quoted(path: str) -> str:
    text = f"file://{Path(path).absolute()}".replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
