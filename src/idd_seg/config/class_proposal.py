"""`prepare classes=propose`: the class list of a folder that has none yet."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.data.class_proposal import class_list_of, propose
from idd_seg.data.folder import Folder
from idd_seg.errors import ConfigError

WORD = "propose"


def write_classes(cfg: DictConfig) -> str:
    """Write the class list that `data.classes` names, by the masks of the training split; return what was done.

    Raises:
        ConfigError: for another word, another data set, or a list that is there already.
        DataError: for a mask that can't be used.
    """
    if cfg.classes != WORD:
        raise ConfigError(f"classes must be {WORD} or null, got '{cfg.classes}'")
    own = OmegaConf.to_container(cfg.data, resolve=False)
    assert isinstance(own, dict)
    if own.get("_target_") != f"{Folder.__module__}.{Folder.__qualname__}" or cfg.data.get("classes") is None:
        raise ConfigError(f"classes={WORD} is for data=folder; data={own.get('name')} has its classes")
    path = Path(str(cfg.data.classes)).expanduser()
    if path.exists():
        raise ConfigError(f"'{path}' is there already; remove it, or write another one: data.classes=FILE")
    found = propose(_masks(cfg))
    path.write_text(class_list_of(found), encoding="utf-8")
    if found.masks != cfg.data.masks:
        with open_dict(cfg):
            cfg.data.masks = found.masks
    more = " (masks in colours: data.masks=rgb)" if found.masks == "rgb" else ""
    return f"classes: '{path}' has {len(found.keys)} values of {found.number} masks{more}; put in the names"


def _masks(cfg: DictConfig) -> list[Path]:
    """Return the masks of the training split, which are found without knowing their classes."""
    patterns = {key: OmegaConf.to_container(cfg.data[key], resolve=True) for key in ("images", "labels")}
    unknown = {"name": "folder", "num_classes": 2, "class_names": ["0", "1"], "palette": [[0, 0, 0], [1, 1, 1]]}
    normalised = {"mean": list(cfg.data.mean), "std": list(cfg.data.std), "channels": cfg.data.channels}
    suffixes = {key: cfg.data[key] for key in ("label_suffix", "image_suffix")}
    data = Folder(root=str(cfg.data.root), **patterns, **suffixes, **unknown, **normalised)  # type: ignore[arg-type]
    return [pair.label for pair in data.make_source("train").pairs if pair.label is not None]
