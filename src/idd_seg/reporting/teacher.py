"""How good the teacher of a run was: from a run of the report, or from the file beside its checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from idd_seg.reporting.files import UnreadableError, part, read_mapping
from idd_seg.reporting.runs import FoundRun, Score, score_of

CHECKPOINT = 4 * 2**30


class Teachers:
    """Finds teachers among runs by path, else by the hash of their checkpoints, else by `metrics.json` on the disk."""

    def __init__(self, runs: Sequence[FoundRun]) -> None:
        self._by_folder = {run.folder.resolve(): run for run in runs}
        # A teacher has none of its own; the others need not be hashed.
        self._candidates = [run for run in runs if run.plain]
        self._known: dict[tuple[str, str], float | None] = {}

    def miou_of(self, run: FoundRun) -> float | None:
        """Return the mIoU of a run's teacher on that teacher's own split, or None."""
        if run.teacher is None:
            return None
        if run.teacher not in self._known:
            self._known[run.teacher] = self._find(*run.teacher)
        return self._known[run.teacher]

    def _find(self, name: str, sha256: str) -> float | None:
        path = Path(name)
        try:
            path = path.resolve()
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):
            return None
        if path.parent.name == "checkpoints" and path.parent.parent in self._by_folder:
            return _of(self._by_folder[path.parent.parent], path.stem)
        if not there and len(sha256) == 64:
            for run in self._candidates:
                for stem in ("last", "best"):
                    if digest_of(run.folder / "checkpoints" / f"{stem}.ckpt") == sha256:
                        return _of(run, stem)
        for folder in (path.parent.parent, path.parent):
            try:
                content = read_mapping(folder / "metrics.json")
            except UnreadableError:
                continue
            score = score_of(part(content, "best" if path.stem == "best" else "last"))
            return score.miou if score else None
        return None


def _of(run: FoundRun, stem: str) -> float | None:
    score: Score | None = run.best if stem == "best" else run.last
    return score.miou if score else None


@cache
def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a checkpoint, or None if there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > CHECKPOINT:
            return None
        found = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(2**20):
                found.update(block)
    except OSError:
        return None
    return found.hexdigest()
