"""The list of files that a run was trained on, kept in its folder, so that it resumes with the same ones alone."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

from idd_seg.data.pipeline.fingerprint import Fingerprint, differences
from idd_seg.errors import RunFolderError

NAME = "data_files.txt.gz"
Fingerprints = Mapping[str, Fingerprint]  # by split


def write_files(folder: Path, files: Fingerprints) -> None:
    """Write the list, aside and renamed."""
    draft = folder / f".{NAME}.tmp"
    with gzip.open(draft, "wt", encoding="utf-8", errors="surrogateescape", compresslevel=3) as file:
        file.writelines(f"{split}\t{line}\n" for split, found in files.items() for line in found.lines())
    draft.replace(folder / NAME)


def read_files(folder: Path) -> Fingerprints | None:
    """Return the list; None where there is none, as in runs of version 0.1, or where it can't be read."""
    lines: dict[str, list[str]] = {}
    try:
        with gzip.open(folder / NAME, "rt", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                split, _, rest = line.partition("\t")
                lines.setdefault(split, []).append(rest)
    except (OSError, EOFError, zlib.error, UnicodeError):
        return None
    return {split: Fingerprint.read(rest) for split, rest in lines.items()}


def refuse_other_files(folder: Path, files: Fingerprints) -> None:
    """Refuse to go on with a run whose files are not there any more, or are others.

    Raises:
        RunFolderError: that names the first of them.
    """
    before = read_files(folder) or {}
    for split, now in files.items():
        if split in before and (text := differences(before[split], now)):
            raise RunFolderError(
                f"'{folder}' was trained on other files of the split '{split}' than are there now: {text}. Put them "
                "back, since a run resumes exactly; or choose another hydra.run.dir, or resume=never, which removes "
                "that run"
            )
