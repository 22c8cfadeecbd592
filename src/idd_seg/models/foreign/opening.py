"""Teachers from elsewhere: which network a configuration or a file describes, and how its classes become the data's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.class_map import Mapped
from idd_seg.models.foreign.network import ForeignNetwork, Opened
from idd_seg.models.pretrained.weights import check_weight_path, read_metadata

MODEL = "model"  # where the metadata of an imported file describes the network
KEPT = "idd_seg.import_checkpoint"


def open_teacher(
    checkpoint: str,
    model: Mapping[str, Any] | None,
    build: Callable[[dict[str, Any]], Any],
    check: Callable[[Any, Path], None],
    seen: Mapping[str, Sequence[float]],
) -> Opened:
    """Build a network from elsewhere with its weights.

    Args:
        model: its configuration; None takes what the file itself says, which `import_checkpoint` has written.
        build: makes the object that a configuration describes.
        check: refuses a configuration that would call what is not of this program.
        seen: `data_mean` and `data_std` of the pictures that it will be given.

    Raises:
        CheckpointError: for an unusable file.
        ConfigError: for a configuration that is no network from elsewhere.
    """
    node = dict(_described(checkpoint, check) if model is None else model)
    if isinstance(node.get("input"), Mapping):
        node["input"] = {**node["input"], **{name: list(values) for name, values in seen.items()}}

    def make(**changes: Any) -> ForeignNetwork:
        given = {name: value for name, value in changes.items() if node.get(name) is None}
        network: ForeignNetwork = build({**node, **given})
        return network

    return kind_of(node).open(checkpoint, make)


def kind_of(model: Mapping[str, Any]) -> type[ForeignNetwork]:
    """Return the class that a configuration names.

    Raises:
        ConfigError: if it is no network from elsewhere.
    """
    target = str(model.get("_target_"))
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"teacher.model._target_: there is no '{target}' ({error})") from error
    if not (isinstance(found, type) and issubclass(found, ForeignNetwork)):
        raise ConfigError(f"teacher.model._target_: '{target}' is no network from elsewhere (a ForeignNetwork)")
    return found


def _described(checkpoint: str, check: Callable[[Any, Path], None]) -> Mapping[str, Any]:
    path = check_weight_path(checkpoint)
    model = read_metadata(path).get(MODEL)
    if not isinstance(model, Mapping):
        raise CheckpointError(
            f"'{path}' does not say what network it is of; teacher=imported takes files that {KEPT} has made"
        )
    check(dict(model), path)
    return model


def in_classes_of(
    opened: Opened, teacher: Mapping[str, Any], data_name: str | None, data_classes: Sequence[str]
) -> nn.Module:
    """Return the network with logits of the data's classes.

    Raises:
        CheckpointError: for another number of classes than the data's, without `teacher.class_map`.
        ConfigError: for a class map that does not fit.
    """
    network, names, class_map = opened.network, known_names(opened, teacher), teacher.get("class_map")
    if class_map is not None:
        return Mapped(network, class_map, data_classes, names)
    if network.num_classes != len(data_classes):
        raise CheckpointError(
            f"'{opened.source.get('path')}' was trained for {network.num_classes} classes, data={data_name} has "
            f"{len(data_classes)}; teacher.class_map=[...] says for each class of the data which of the teacher's "
            "stand for it"
        )
    if differ := next(((a, b) for a, b in zip(names or data_classes, data_classes, strict=True) if a != b), None):
        opened.said.append(
            f"its class '{differ[0]}' is taken for the data's '{differ[1]}', by its place; if they are others, "
            "teacher.class_map says which"
        )
    return network


def known_names(opened: Opened, teacher: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the network's classes, as the configuration or else its file says them.

    Raises:
        ConfigError: if the configuration names another number of classes than the network has.
    """
    given = teacher.get("class_names")
    if given is None:
        return opened.class_names
    if len(given) != opened.network.num_classes:
        raise ConfigError(
            f"teacher.class_names has {len(given)} names, the network {opened.network.num_classes} classes"
        )
    return [str(name) for name in given]


def say(opened: Opened) -> None:
    """Tell the user what was loaded and left out; of several processes one does."""
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        return
    for line in opened.said:
        print(f"teacher: {line}")
