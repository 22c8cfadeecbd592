"""Which folders below the given ones hold a training run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from idd_seg.errors import UserError
from idd_seg.reporting.files import UnreadableError, read_mapping

MARKS = ("run.json", "metrics.json", "metrics.csv")
INSIDE_A_RUN = {"checkpoints", "exhibits", "pictures", "tensorboard", "wandb"}
OTHER_COMMANDS = {
    f"{name}.py" for name in ("evaluate", "compare", "predict", "export", "benchmark", "prepare", "report")
}
DEPTH = 12


def find_runs(folders: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Return the run folders in and below `folders`, each once, and notes on folders that can't be opened.

    Links inside are not followed. Folders of other commands (`evaluate`, `compare` ...) don't count.

    Raises:
        UserError: if a folder is missing, is none, can't be opened, or holds no run.
    """
    found: dict[Path, Path] = {}
    notes: list[str] = []
    for top in folders:
        _check(top)
        here = [folder for folder in _walk(top, notes) if _is_run(folder)]
        if not here:
            raise UserError(
                f"no run in '{top}': a run folder holds one of {', '.join(MARKS)}; name a folder that training has made"
            )
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return [found[key] for key in sorted(found, key=natural)], notes


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a sorting key by which job 10 comes after job 9."""
    words: list[tuple[int, int, str]] = []
    for name in path.parts:
        digits = name[: len(name) - len(name.lstrip("0123456789"))]
        words.append((0, int(digits[:18]), name) if digits and digits.isascii() else (1, 0, name))
    return words


def _check(top: Path) -> None:
    try:
        with os.scandir(top):
            pass
    except FileNotFoundError:
        raise UserError(f"there is no folder '{top}'") from None
    except NotADirectoryError:
        raise UserError(f"'{top}' is a file; name the folder of a run or of a sweep") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{top}' can't be opened: {getattr(error, 'strerror', None) or error}") from None


def _walk(top: Path, notes: list[str]) -> list[Path]:
    found = []

    def unreadable(error: OSError) -> None:
        notes.append(f"{error.filename} can't be opened: {error.strerror}")

    for name, below, _ in os.walk(top, onerror=unreadable):
        folder = Path(name)
        found.append(folder)
        deep = len(folder.parts) - len(top.parts) >= DEPTH
        below[:] = [] if deep else sorted(b for b in below if b not in INSIDE_A_RUN and not b.startswith("."))
    return found


def _is_run(folder: Path) -> bool:
    if (folder / "run.json").exists():
        try:
            command = read_mapping(folder / "run.json").get("command")
        except UnreadableError:
            return True
        return not (isinstance(command, list) and command and str(command[0]) in OTHER_COMMANDS)
    if any((folder / name).exists() for name in MARKS):
        return True
    # A run that stopped before anything but its configuration was written.
    try:
        return {"student", "loss", "trainer"} <= read_mapping(folder / "config.yaml").keys()
    except UnreadableError:
        return False
