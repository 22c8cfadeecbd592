"""What has been found, on disk at every moment: a small JSON file for each part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from idd_seg.runs.provenance import write_json

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"
FAILED, LATE, STOPPED, LEFT_OUT = "failed", "out of time", "stopped", "left out"
BAD = (FAILED, LATE, STOPPED)


class Record:
    """The file of one part.

    Args:
        path: of the file.
        about: what all files of a run say: machine, commit, seed.
        private: texts that are kept out of the file, by what stands for them: folders of this machine.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], private: Mapping[str, str] | None = None) -> None:
        self.path, self._private = path, dict(private or {})
        self._since = 0.0
        self.content: dict[str, Any] = {
            "part": path.stem,
            "state": WAITING,
            "why": None,
            "begun": None,
            "seconds": None,
            "limit_seconds": None,
            "commands": [],
            "last_lines": [],
            **about,
            "result": {},
        }
        self._write()

    @property
    def state(self) -> str:
        """One of the words of this module."""
        return str(self.content["state"])

    def begin(self, limit: float) -> None:
        """Note that the part begins, and the seconds that it has."""
        self._since = time.monotonic()
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.content.update(state=RUNNING, begun=now, limit_seconds=round(limit, 1))
        self._write()

    def command(self, words: Sequence[str]) -> None:
        """Note a command before it runs."""
        self.content["commands"].append(" ".join(words))
        self._write()

    def note(self, **found: Any) -> None:
        """Add to what was found."""
        self.content["result"].update(found)
        self._write()

    def end(self, state: str, why: str | None = None, lines: Sequence[str] = ()) -> None:
        """Note how the part has ended."""
        seconds = round(time.monotonic() - self._since, 1) if self._since else None
        self.content.update(state=state, why=why, seconds=seconds, last_lines=list(lines))
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self._public(self.content))

    def _public(self, value: Any) -> Any:
        if isinstance(value, str):
            for text, name in self._private.items():
                value = value.replace(text, name)
            return value
        if isinstance(value, Mapping):
            return {key: self._public(each) for key, each in value.items()}
        return [self._public(each) for each in value] if isinstance(value, list | tuple) else value
