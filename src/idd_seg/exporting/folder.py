"""The exported folder: weights, what rebuilds the network around them, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from idd_seg import __version__
from idd_seg.checkpoints.data_card import DataCard
from idd_seg.checkpoints.exported_folder import CONFIG, FOLDER_FORMAT, WEIGHTS, SavedFolder
from idd_seg.checkpoints.reader import Saved
from idd_seg.config.restore import BARE

MOST_BYTES = 2**24  # of what a run wrote beside its checkpoint


def write_weights(network: nn.Module, folder: Path) -> Path:
    """Write the network's weights as safetensors, and return the file."""
    from safetensors.torch import save

    state = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))
    return folder / WEIGHTS


def config_of(saved: Saved, card: DataCard) -> dict[str, Any]:
    """Return what rebuilds the network, in plain values: no path of this machine, no training options."""
    crop = (saved.config("data").get("augment") or {}).get("crop")
    return {
        "library": "idd-seg",
        "library_version": __version__,
        "format": FOLDER_FORMAT,
        "name": saved.metadata.get("name"),
        "class_names": card.class_names,
        "id2label": {str(i): name for i, name in enumerate(card.class_names)},
        "student": {**saved.config("student"), **BARE},
        "data": {**card.as_dict(), "augment": None if crop is None else {"crop": list(crop)}},
        "source": source_of(saved),
    }


def source_of(saved: Saved) -> dict[str, Any]:
    """Return where the weights come from: hashes, seed, and the commit if the run wrote it down."""
    if isinstance(saved, SavedFolder):
        stored = _json(saved.path.parent / CONFIG).get("source")
        return dict(stored) if isinstance(stored, Mapping) else {}
    teacher = saved.metadata.get("teacher")
    path = teacher.get("path") if isinstance(teacher, Mapping) else None
    run = _json(saved.path.parent.parent / "run.json")
    git = run.get("git")
    versions = run.get("versions")
    return {
        "checkpoint": saved.path.name,
        "sha256": saved.sha256,
        "seed": saved.metadata.get("seed"),
        "commit": git.get("commit") if isinstance(git, Mapping) else None,
        "trained_with": dict(versions) if isinstance(versions, Mapping) else None,
        "teacher": {"file": Path(str(path)).name, "sha256": teacher.get("sha256")} if path and teacher else None,
    }


def metrics_of(saved: Saved) -> dict[str, Any] | None:
    """Return the scores that the run wrote for this checkpoint, with their split; None if it has none."""
    content = _json(saved.path.parent.parent / "metrics.json")
    found = content.get(saved.path.stem)
    if isinstance(saved, SavedFolder) or not isinstance(found, Mapping) or not isinstance(found.get("miou"), float):
        return None
    return {"split": content.get("split"), **found}


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON file that may be missing or no such file at all."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
