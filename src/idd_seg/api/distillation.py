"""`idd_seg.distil(teacher, student, data, ...)`: names, files, or what the program has built itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from idd_seg.api.trained import Trained
from idd_seg.api.training import run_here
from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.config.from_python import composed, words_of_options
from idd_seg.config.groups import options_of
from idd_seg.config.preflight import GivenParts
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.errors import ConfigError, DataError, suggest
from idd_seg.models.given import Given, name_of

Terms = str | Sequence[str] | Mapping[str, float]
# Of a teacher that is given: what else may be said of it.
OF_ANY_TEACHER = ("teacher.every_n_steps", "teacher.start", "teacher.stop", "teacher.scale")


def distil(teacher: Any, student: Any, data: Any, terms: Terms, *texts: str, **options: Any) -> Trained:
    """Distil a teacher into a student, as `idd_seg.distil` documents."""
    given = GivenParts(_module(student), _module(teacher), _data(data))
    _refuse_both(words_of_options(texts, options), given)
    words = [*_data_words(data), *_network_words("student", student), *_network_words("teacher", teacher)]
    words += _term_words(terms)
    if given.groups:
        words.append("trainer.devices=1")
    words += words_of_options(texts, options)
    with composed(words) as cfg:
        _describe(cfg, given)
        trained = run_here(cfg, None if given.groups else words, given)
    if given.student is None:
        return trained
    # The run ends with the last step's weights.
    saved = read_checkpoint(trained.checkpoint)
    saved.load_into(Given(given.student, len(saved.class_names or ()), "student"), "student")
    return replace(trained, network=given.student.eval())


def _module(network: Any) -> nn.Module | None:
    return network if isinstance(network, nn.Module) else None


def _data(data: Any) -> SegmentationDataModule | None:
    if isinstance(data, L.LightningDataModule) and not isinstance(data, SegmentationDataModule):
        raise DataError(
            f"data is a {name_of_type(data)}, whose batches are its own; this program makes them, so that a run can go "
            "on to the bit: derive from idd_seg.data.pipeline.datamodule.SegmentationDataModule (docs/library.md)"
        )
    return data if isinstance(data, SegmentationDataModule) else None


def name_of_type(thing: Any) -> str:
    """Return the class of an object with where it is defined."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _data_words(data: Any) -> list[str]:
    if isinstance(data, SegmentationDataModule):
        # Of the group its recipe is read, and no class list.
        nothing: dict[str, Any] = {"label_values": None, "ignored": [], "ignored_colours": []}
        classes = {
            name: value for name, value in _card(data).items() if name in ("num_classes", "class_names", "palette")
        }
        return words_of_options(["data=folder", "data.root=."], {"data": {**nothing, **classes}})
    if not isinstance(data, str | os.PathLike):
        raise ConfigError(f"data is a name, a folder or a SegmentationDataModule, got a {type(data).__name__}")
    names = options_of("data")
    if data in names:
        return [f"data={data}"]
    if not Path(data).expanduser().is_dir():
        raise DataError(
            f"data: there is no folder '{data}', nor is it a data set's name{suggest(str(data), names)} The names are "
            f"{', '.join(names)}"
        )
    return words_of_options(["data=folder"], {"data.root": Path(data).expanduser()})


def _network_words(group: str, network: Any) -> list[str]:
    if isinstance(network, nn.Module):
        return []
    if not isinstance(network, str | os.PathLike) or not os.fspath(network):
        raise ConfigError(f"{group} is a name, a checkpoint's path or a torch module, got a {type(network).__name__}")
    text = os.fspath(network)
    if text in options_of(group):
        return [f"{group}={text}"]
    if group == "teacher":
        return words_of_options(["teacher=checkpoint"], {"teacher.checkpoint": Path(text).expanduser()})
    names = options_of(group)
    raise ConfigError(f"there is no student={text}{suggest(text, names)} The choices are {', '.join(names)}")


def _term_words(terms: Terms) -> list[str]:
    names = [terms] if isinstance(terms, str) else [str(name) for name in terms]
    weights = terms if isinstance(terms, Mapping) else {}
    return words_of_options([f"loss=[{','.join(names)}]"], {f"loss.{name}_weight": w for name, w in weights.items()})


def _refuse_both(words: Iterable[str], given: GivenParts) -> None:
    """Refuse an option of what the program has built: nothing would read it."""
    refused = [f"{group}." for group in given.groups] + [f"{group}=" for group in given.groups]
    if given.teacher is not None:
        refused += ["teacher_optimizer=", "optimizer@teacher."]
    if given.student is not None:
        refused += ["head@student", "init_from=", "freeze=", "pretrained="]
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if word.lstrip("+~").startswith(tuple(refused)) and key not in OF_ANY_TEACHER:
            raise ConfigError(f"'{word}': {' and '.join(given.groups)} have been built, and options don't change them")


def _describe(cfg: DictConfig, given: GivenParts) -> None:
    """Write what is given into the configuration, for checkpoints and for whoever reads the run's folder."""
    with open_dict(cfg):
        if given.student is not None:
            cfg.student = {"_target_": f"given by a program: {name_of(given.student)}"}
        if given.teacher is not None:
            target = {"_target_": f"given by a program: {name_of(given.teacher)}"}
            kept = {key.partition(".")[2]: OmegaConf.select(cfg, key) for key in OF_ANY_TEACHER}
            cfg.teacher = {"name": "given", "model": target, "checkpoint": None, "class_map": None, **kept}
        if given.data is not None:
            cfg.data = {**_card(given.data), "recipe": cfg.data.recipe}


def _card(data: SegmentationDataModule) -> dict[str, Any]:
    """Return what checkpoints and other options say of a data set."""
    return {
        "_target_": f"given by a program: {name_of_type(data)}",
        "name": data.name,
        "num_classes": data.num_classes,
        "class_names": list(data.class_names),
        "palette": [list(colour) for colour in data.palette],
        "mean": [round(float(value), 6) for value in data.mean],
        "std": [round(float(value), 6) for value in data.std],
        "channels": data.pixels.channels,
        "bits": data.pixels.bits,
        "image_scale": data.image_scale,
        "ignore_index": data.ignore_index,
        "batch_size": data.batch_size,
        "seed": data.seed,
    }
