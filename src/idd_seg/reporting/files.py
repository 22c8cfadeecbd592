"""Reading what a run has left: bounded, regular files alone, and a note instead of an exception."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from idd_seg.errors import printable

MEBIBYTE = 2**20
LIMITS = {".json": 16 * MEBIBYTE, ".yaml": 1 * MEBIBYTE, ".csv": 64 * MEBIBYTE, ".png": 4 * MEBIBYTE}


class UnreadableError(Exception):
    """A file of a run that can't be used; the message is shown beside the run."""


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's content.

    Raises:
        UnreadableError: if it is not there, is no regular file, can't be read, or is larger than `limit` bytes.
    """
    try:
        # A pipe would block at opening.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnreadableError(f"{path.name} is not a regular file")
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise UnreadableError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path.name} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > limit:
        raise UnreadableError(f"{path.name} is larger than {limit // MEBIBYTE} MiB and is not read")
    return content


def read_text(path: Path) -> str:
    """Return a text file, with what is no UTF-8 replaced."""
    return read_bytes(path, LIMITS[path.suffix]).decode("utf-8", "replace")


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file.

    Raises:
        UnreadableError: also for broken content and for content that is no mapping.
    """
    text = read_text(path)
    try:
        found = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        raise UnreadableError(f"{path.name} is broken or half-written") from None
    if not isinstance(found, dict):
        raise UnreadableError(f"{path.name} holds no mapping")
    return found


def read_list(path: Path) -> list[Any]:
    """Return the list in a YAML file; empty if there is none."""
    try:
        found = _yaml(read_text(path))
    except (UnreadableError, ValueError, yaml.YAMLError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _yaml(text: str) -> Any:
    # The C parser reads a sweep's configurations ten times as fast; both build plain values alone.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # No file of a run has aliases, by which a few bytes would stand for gigabytes.
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader)):
        raise yaml.YAMLError("an alias")
    return yaml.load(text, Loader=loader)


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text_of(value: object, limit: int = 300) -> str:
    """Return text that can be shown: valid UTF-8, of a bounded length."""
    text = printable(value if isinstance(value, str) else str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def part(content: object, key: str) -> dict[str, Any]:
    """Return the mapping under a key, empty if there is none."""
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
