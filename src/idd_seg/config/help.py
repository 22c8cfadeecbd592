"""What --help prints: one screen; --help=all every option with its comment, --help=NAME those that begin so.

Hydra's own help first looks through every group of every package, which takes most of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.chosen_terms import with_their_terms
from idd_seg.config.groups import chosen_groups, config_dir, options_of
from idd_seg.config.option_comments import Choice, Option, Reader, put, read
from idd_seg.errors import ConfigError

ASKED = {"--help", "-h"}
ALL = "all"
WIDTH = 110  # characters of a line
SCREEN = 45  # lines that a command's help may have by itself
NAME = 34  # characters that names are padded to
FEW = 3  # options side by side that have a line each, whether or not they have a comment

# Of a command with more options than a screen shows: those of its groups that are asked for first.
OFTEN = (
    *("data.root", "data.unlabelled", "student.weights", "teacher.checkpoint"),
    *("trainer.max_steps", "trainer.devices", "trainer.precision"),
)
# Of its own options those that only a cluster asks for.
SELDOM = {"max_idle_restarts"}
SHORT_NAMES = {"train": {"lr": "optimizer.lr", "batch": "data.batch_size"}}


def asked(words: Sequence[str]) -> str | None:
    """Return what --help is asked for: "" for a screen, or what stands behind `--help=`; None without it."""
    for word in words:
        flag, _, topic = word.partition("=")
        if flag in ASKED:
            return topic
    return None


def asks_for_help(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for help and for nothing else of Hydra's."""
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    return bool(flags & ASKED) and not flags - ASKED


def help_text(config_name: str, words: Sequence[str]) -> str:
    """Return the help of a command, with the options of the choices that its words make.

    Raises:
        ConfigError: if no option and no group begins with what stands behind `--help=`.
    """
    topic = asked(words) or ""
    cfg = _composed(config_name, _with_term([word for word in words if not word.startswith("-")], topic, config_name))
    said = _meanings(config_name, cfg)
    options = {name: _line(name, value, said.get(name, "")) for name, value in _values(cfg)}
    if topic == ALL:
        return "\n".join([_header(cfg), *_choices(config_name, cfg, short=False), "", *options.values(), "", _end()])
    if topic:
        return "\n".join(_about(topic, config_name, options))
    if len(options) + len(chosen_groups(config_name)) <= SCREEN:
        return "\n".join([_header(cfg), *_choices(config_name, cfg, short=True), *options.values(), "", _end(few=True)])
    own = [one.name for one in read(config_name).options]
    first = [name for name in options if name in {*own, *OFTEN} - SELDOM]
    short = [_line(name, f"${{{of}}}", said.get(of, "")) for name, of in SHORT_NAMES.get(config_name, {}).items()]
    lines = [_cut(line) for line in [*_folded(first, options), *short]]
    return "\n".join([_header(cfg), *_choices(config_name, cfg, short=True), "", *lines, "", _end()])


def _with_term(words: list[str], topic: str, config_name: str) -> list[str]:
    """Return words that choose the term which is asked for, too: `--help=loss.idd`, whose options add it."""
    asked_for = f"{topic}=0"
    return [word for word in with_their_terms([*words, asked_for], config_name) if word != asked_for]


def _composed(config_name: str, overrides: list[str]) -> DictConfig:
    named = [word.partition("=")[0] for word in overrides]
    open_choices = [f"{group}={options_of(group)[0]}" for group in _to_choose(config_name) if group not in named]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose(config_name, [*open_choices, *overrides], return_hydra_config=True)


def _folded(names: Iterable[str], options: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of these options; many side by side without a comment are one line."""
    for prefix, group in groupby(names, key=lambda name: name.rpartition(".")[0]):
        alike = list(group)
        if prefix and len(alike) > FEW and not any(" # " in options[name] for name in alike):
            yield f"{prefix + '.NAME=':<{NAME}} of {', '.join(name.rpartition('.')[2] for name in alike)}"
        else:
            yield from (options[name] for name in alike)


def _header(cfg: DictConfig) -> str:
    text: str = cfg.hydra.help.header
    return text


def _end(*, few: bool = False) -> str:
    more = [] if few else ["--help=all lists every option; --help=loss those of a group, --help=data.recipe of a part."]
    more += ["--cfg job shows what would be done, --hydra-help what Hydra can."]
    return "\n".join(more)


def _choices(config_name: str, cfg: DictConfig, *, short: bool) -> Iterator[str]:
    """Yield a line for each group: what is chosen, and what may be; in short, where that is more than one thing."""
    for group in chosen_groups(config_name):
        options = options_of(group)
        if not options or (short and len(options) == 1):
            continue
        chosen = _chosen(group, cfg)
        text = f"{group}={chosen[0] if len(chosen) == 1 else '[' + ','.join(chosen) + ']' if chosen else ''}"
        line = f"{text:<{NAME}} of {', '.join(options)}"
        yield _cut(line) if short else line


def _cut(line: str) -> str:
    """Return a line that is not longer than the screen is wide."""
    return line if len(line) <= WIDTH else line[: WIDTH - 4].rsplit(" ", 1)[0].rstrip(",;") + " ..."


def _chosen(group: str, cfg: DictConfig) -> list[str]:
    """Return what is chosen of a group; Hydra keeps no record where several may be."""
    one = cfg.hydra.runtime.choices.get(group)
    if isinstance(one, str):
        return [one] if one in options_of(group) else []
    node = cfg.get(group)
    return [name for name in options_of(group) if isinstance(node, DictConfig) and name in node]


def _values(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the dotted names of all options and their values as they stand, without Hydra's."""
    plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    yield from _leaves(plain, "")


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if re.fullmatch(r"_\w+_", str(key)):
            continue
        if isinstance(value, dict) and value and all(isinstance(name, str) for name in value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _line(name: str, value: Any, meaning: str) -> str:
    shown = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()
    shown = shown.removesuffix("...").strip().strip("'")
    shown = shown if len(shown) <= 60 else f"({len(value)} entries)" if isinstance(value, list | dict) else shown
    left = f"{name}={shown}"
    if not meaning:
        return left
    return f"{left:<{NAME}} # {meaning}"


def _about(topic: str, config_name: str, options: dict[str, str]) -> Iterator[str]:
    group = next((one for one in chosen_groups(config_name) if topic in (one, one.partition("@")[2])), None)
    found = [line for name, line in options.items() if name == topic or name.startswith(f"{topic}.")]
    if group is None and not found:
        raise ConfigError(f"--help={topic}: no option and no group has this name. --help=all lists all of them")
    if group is not None:
        for name in options_of(group):
            yield f"{group + '=' + name:<{NAME}} # {read(group.partition('@')[0] + '/' + name).header}"
        yield ""
    yield from found


def _meanings(config_name: str, cfg: DictConfig) -> dict[str, str]:
    """Return the comments of the options that the choices bring, by dotted name."""
    whole = Choice(config_name, "", "")
    reader = Reader()
    for group in chosen_groups(config_name):
        plain, _, package = group.partition("@")
        for name in _chosen(group, cfg):
            for one in reader.choice(plain, name).options.values():
                moved = re.sub(rf"^{plain}\b", package, one.name) if package else one.name
                put(whole, [Option(moved, one.default, one.meaning)], "")
    for name in _stands_on(config_name):
        put(whole, read(name).options, "")
    return {name: one.meaning for name, one in whole.options.items()}


def _stands_on(config_name: str) -> Iterator[str]:
    for entry in read(config_name).defaults:
        if isinstance(entry, str) and entry != "_self_":
            yield from _stands_on(entry)
    yield config_name


def _to_choose(config_name: str) -> list[str]:
    """Return the groups of which a command has no choice of its own: `study=???`."""
    text = (config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    defaults = [entry for entry in yaml.safe_load(text).get("defaults", []) if isinstance(entry, dict)]
    return [group for entry in defaults for group, choice in entry.items() if choice == "???"]
