"""What --help prints. Hydra's own first looks through every group of every package, which takes most of a second."""

from __future__ import annotations

import string
from collections.abc import Sequence

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.config.groups import config_dir, options_of

ASKED = {"--help", "-h"}


def asks_for_help(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for help and for nothing else of Hydra's."""
    flags = {word for word in words if word.startswith("-")}
    return bool(flags & ASKED) and not flags - ASKED


def help_text(config_name: str, words: Sequence[str]) -> str:
    """Return the help of a command, with the options of the choices that its words make."""
    overrides = [word for word in words if not word.startswith("-")]
    asked = [word.partition("=")[0] for word in overrides]
    open_choices = [f"{group}={options_of(group)[0]}" for group in _to_choose(config_name) if group not in asked]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra.compose(config_name, [*open_choices, *overrides], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.job.config_name = config_name
    template: str = cfg.hydra.help.template
    return string.Template(template).substitute(CONFIG=OmegaConf.to_yaml(_options(cfg)))


def _options(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _to_choose(config_name: str) -> list[str]:
    """Return the groups of which a command has no choice of its own: `study=???`."""
    text = (config_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    defaults = [entry for entry in yaml.safe_load(text).get("defaults", []) if isinstance(entry, dict)]
    return [group for entry in defaults for group, choice in entry.items() if choice == "???"]
