"""Writing a network from elsewhere as a file of this program: weights in safetensors, with what they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idd_seg import __version__
from idd_seg.errors import CheckpointError, ConfigError
from idd_seg.models.foreign.network import Opened
from idd_seg.models.foreign.opening import known_names
from idd_seg.models.pretrained.weights import CARD, check_weight_path

FORMAT = 1
SUFFIX = ".safetensors"


def target_of(out: str, checkpoint: str) -> Path:
    """Return where to write.

    Raises:
        ConfigError: for another suffix than `.safetensors`, a folder that is not there, or a file that is.
        CheckpointError: if there is no file to import.
    """
    target = Path(out).expanduser()
    if target.suffix != SUFFIX:
        raise ConfigError(f"out={out}: the file's name must end with {SUFFIX}")
    if not target.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder '{target.parent}'")
    if target.exists():
        raise ConfigError(f"out={out} exists already and is left as it is; remove it, or give another name")
    if Path(checkpoint).expanduser().is_dir():
        raise CheckpointError(
            f"'{checkpoint}' is a folder; one of teacher=huggingface is used as it is: teacher.checkpoint={checkpoint}"
        )
    check_weight_path(checkpoint)
    return target


def names_for(
    opened: Opened, given: Sequence[str] | None, data_name: str, data_names: Sequence[str]
) -> list[str] | None:
    """Return the names of the network's classes: given, from the file, or else the data's, if they are as many."""
    names = known_names(opened, {"class_names": given})
    if names is None and len(data_names) == opened.network.num_classes:
        opened.said.append(f"its classes are taken for those of data={data_name}, by their place")
        return [str(name) for name in data_names]
    return names


def write(out: Path, opened: Opened, model: Mapping[str, Any], class_names: Sequence[str] | None) -> None:
    """Write the network's weights, and in the metadata its configuration, its classes and where it came from.

    Args:
        model: plain configuration by which the network can be built again.
    """
    from safetensors.torch import save_file

    metadata = {
        "format": FORMAT,
        "model": {**model, "num_classes": opened.network.num_classes},
        "class_names": None if class_names is None else list(class_names),
        "source": {"name": Path(opened.source["path"]).name, "sha256": opened.source["sha256"]},
        "written_by": f"idd-seg {__version__}",
    }
    weights = {name: value.contiguous() for name, value in opened.network.inner.state_dict().items()}
    draft = out.with_name(f".{out.name}.tmp")
    try:
        save_file(weights, draft, {CARD: json.dumps(metadata, sort_keys=True)})
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
