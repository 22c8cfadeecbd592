"""Folders in the Hugging Face layout: where one is, and that its weights can be read without executing anything."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from idd_seg.errors import CheckpointError
from idd_seg.models.foreign.extras import needed
from idd_seg.models.pretrained.hub import answers
from idd_seg.models.pretrained.weights import file_hash, refuse_url

CONFIG = "config.json"
PICTURES = "preprocessor_config.json"
LARGEST_JSON = 1 << 24  # bytes


def folder_of(name: str) -> Path:
    """Return the folder of a network: one that is named, or a repository's in the local cache, else from the hub.

    Raises:
        CheckpointError: for a URL, a file, or a repository that is not in the cache while the hub can't be reached; if
            the folder has no `config.json`, or no weights in safetensors.
    """
    refuse_url(name)
    found = Path(name).expanduser()
    if found.is_file():
        raise CheckpointError(f"'{name}' is a file; teacher=huggingface takes the folder with {CONFIG} and the weights")
    if not found.is_dir():
        found = _downloaded(name)
    if not (found / CONFIG).is_file():
        raise CheckpointError(f"'{name}' has no {CONFIG}")
    if not weight_files(found):
        others = sorted(p.name for p in found.glob("*.bin"))
        why = f"but {', '.join(others)}, which would have to be unpickled" if others else "and no other weights"
        raise CheckpointError(f"'{name}' has no weights in safetensors (*.safetensors), {why}")
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that a folder holds, in order of their names."""
    return sorted(folder.glob("*.safetensors"))


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and hashes of the files of weights."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no such file.

    Raises:
        CheckpointError: if it is too large, or no JSON object.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST_JSON:
        raise CheckpointError(f"'{path}' is larger than {LARGEST_JSON} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds no JSON object")
    return content


def _downloaded(name: str) -> Path:
    """Return a repository's folder in the cache; its safetensors and JSON files alone are ever fetched."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(f"there is no folder '{name}', and it is no name of a repository (owner/name) either")
    hub = needed("huggingface_hub", "huggingface")
    wanted = {"repo_id": name, "allow_patterns": ["*.safetensors", "*.json"]}
    try:
        return Path(hub.snapshot_download(**wanted, local_files_only=True))
    except Exception as first:
        if not answers():
            raise CheckpointError(
                f"there is no folder '{name}', the repository is not in the local cache, and the hub can't be reached; "
                "download it elsewhere and give its folder"
            ) from first
    try:
        return Path(hub.snapshot_download(**wanted))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"the repository '{name}' can't be downloaded: {reason}") from error
