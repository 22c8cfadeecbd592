"""Reading back what wandb wrote offline: records of its protocol in blocks of 32 KiB, as LevelDB's log has them."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


@dataclass
class Written:
    """A run as it lies in its file; of configuration, history and summary the last value of each key."""

    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_only_run(run_dir: Path) -> Written:
    """Read the one offline run below a run folder."""
    (path,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    return read_run(path)


def read_run(path: Path, patience: float = 20.0) -> Written:
    """Read a `.wandb` file; skip the test where this version of wandb has another protocol.

    Its process writes the last records when `finish` has returned already: they are waited for.
    """
    limit = time.monotonic() + patience
    while (found := _read(path)).exit_code is None and time.monotonic() < limit:
        time.sleep(0.05)
    return found


def _read(path: Path) -> Written:
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found = Written()
    for data in records(path.read_bytes()):
        record = pb.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.project, found.name = run.run_id, run.project, run.display_name
            found.group, found.job_type, found.tags = run.run_group, run.job_type, list(run.tags)
            found.config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.rows.append(row)
            found.history |= row
        elif kind == "summary":
            found.summary |= {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.summary.update
            }
        elif kind == "config":
            found.config |= {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.config.update
            }
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(content: bytes) -> list[bytes]:
    """Return the records, put together from their parts."""
    assert content[:4] == b":W&B"
    found, parts, at = [], b"", HEADER
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK  # filled with zeros
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            found.append(parts)
            parts = b""
    return found
