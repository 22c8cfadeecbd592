"""Reading an exported folder, which a stranger may have written: plain values and tensors alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idd_seg.checkpoints.reader import STUDENT, Saved, read_checkpoint
from idd_seg.errors import CheckpointError
from idd_seg.models.acceleration.fold_batch_norm import fold_batch_norms
from idd_seg.models.pretrained.weights import check_weight_path, file_hash, read_weights, refuse_run_folder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FOLDER_FORMAT = 1
MOST_BYTES = 2**20  # of a configuration; ADE20K's is 20 kB


def probe(network: nn.Module) -> Tensor:
    """Return a picture that shows which layers of a network follow each other."""
    return torch.zeros(1, getattr(network, "in_channels", 3), 64, 64)


@dataclass(frozen=True)
class SavedFolder(Saved):
    """An exported folder: a student whose BatchNorms have been folded away."""

    def load_into(self, network: nn.Module, what: str) -> None:
        """Fold the fresh network as the exported one was, and load the weights.

        Raises:
            CheckpointError: that names the first differences, if the network is another one.
        """
        fold_batch_norms(network.eval(), probe(network))
        super().load_into(network, what)


def read_saved(path: Path | str) -> Saved:
    """Read a checkpoint of `idd_seg.train`, or the folder that `idd_seg.export` made of one.

    Raises:
        CheckpointError: if it is missing, a URL, damaged, hostile, or not of this program.
    """
    text = str(path)
    return _read_folder(Path(text).expanduser()) if Path(text).expanduser().is_dir() else read_checkpoint(path)


def read_beside(file: Path) -> SavedFolder:
    """Read what an exported folder says of a graph in it; the graph's weights are the runtime's to read.

    Raises:
        CheckpointError: if the file or its `config.json` is missing, a URL, or not of this program.
    """
    found = check_weight_path(file)
    return SavedFolder(found, {}, _metadata(found.parent), _graph_hash(found))


def _graph_hash(file: Path) -> str:
    """SHA-256 of a graph; of OpenVINO's also of the weights beside it, without which two networks look alike."""
    beside = file.with_suffix(".bin")
    if file.suffix != ".xml" or not beside.is_file():
        return file_hash(file)
    return hashlib.sha256(f"{file_hash(file)} {file_hash(beside)}".encode()).hexdigest()


def _metadata(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint would say of itself."""
    config = _read_config(folder)
    groups = {group: config.get(group) for group in ("student", "data")}
    for group, node in groups.items():
        if not isinstance(node, Mapping):
            raise CheckpointError(f"'{folder / CONFIG}' does not say what the {group} was; was it written by export?")
    return {"class_names": config.get("class_names"), "name": config.get("name"), "config": groups}


def _read_folder(folder: Path) -> SavedFolder:
    metadata = _metadata(folder)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"'{folder}' has no {WEIGHTS}; export it with formats=[safetensors] (and others, as you like)"
        )
    weights_path = check_weight_path(folder / WEIGHTS)
    weights = {f"{STUDENT}{name}": value for name, value in read_weights(weights_path).items()}
    return SavedFolder(folder / CONFIG, weights, metadata, file_hash(weights_path))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        refuse_run_folder(folder)
        raise CheckpointError(f"'{folder}' is no exported folder: it has no {CONFIG}")
    if path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"'{path}' has {path.stat().st_size} bytes; a configuration has fewer than {MOST_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is no readable JSON: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(content, dict) or content.get("library") != "idd-seg":
        raise CheckpointError(f"'{path}' is not of a folder that idd_seg.export wrote")
    if content.get("format") != FOLDER_FORMAT:
        raise CheckpointError(f"'{path}' has format {content.get('format')}; this program reads format {FOLDER_FORMAT}")
    return content
