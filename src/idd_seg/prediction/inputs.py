"""Which files are to be predicted, and what their results are called."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from idd_seg.data.pipeline.files import is_hidden, walk
from idd_seg.data.pipeline.pairing import fixed, matches
from idd_seg.errors import ConfigError, DataError, printable
from idd_seg.evaluation.picture_input import SUFFIXES
from idd_seg.prediction.video import VIDEO_SUFFIXES

KINDS = ("index", "palette", "overlay")  # of results, each in a folder of that name
MOST_LINES = 10**7  # of a list on the standard input


@dataclass(frozen=True)
class PictureJob:
    """A file, and the path of its results below the output folder, with the file's own ending or without."""

    source: Path
    name: Path

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES


def find_jobs(
    text: str,
    output: Path,
    keep_ending: bool = False,
    lines: TextIO | None = None,
    results: Sequence[str] = KINDS,
) -> list[PictureJob]:
    """Return the files that `input` means, in the order of names, or of the list.

    Args:
        text: a file; a folder, all pictures below it; a pattern, `**` means any folders; `-`, a list on `lines`.
        output: its folders of the names `results` hold results, which are no input.
        keep_ending: `a.jpg` gives `a.jpg.png` instead of `a.png`.
        lines: the standard input by default.

    Raises:
        DataError: if there is nothing, or no picture.
        ConfigError: for a URL, or if two files would have the same results.
    """
    if "://" in text:
        raise ConfigError(f"input={text} is a URL; download it, and give the file's path")
    sources, top = _listed(lines or sys.stdin) if text == "-" else _found(text)
    made = {output.resolve() / kind for kind in results}
    kept = [path for path in sources if not made & set(path.resolve().parents)]
    if not kept:
        raise DataError(f"input={printable(text)}: all that it means are results in the output folder '{output}'")
    if left := len(sources) - len(kept):
        print(f"{left} files are left out: they are results in '{output}'")
    jobs = [PictureJob(path, _name(path, top, keep_ending)) for path in kept]
    _refuse_twins(jobs)
    return jobs


def _found(text: str) -> tuple[list[Path], Path]:
    """Return the files, and the folder that their names are relative to."""
    path = Path(text).expanduser()
    if path.is_dir():
        if not (found := walk(path, SUFFIXES)):
            raise DataError(f"the folder '{printable(text)}' holds no pictures ({', '.join(SUFFIXES)})")
        return found, path
    if path.exists():
        return [path], path.parent
    if not glob.has_magic(text):
        raise DataError(f"there is no file or folder '{printable(text)}'")
    known = (*SUFFIXES, *VIDEO_SUFFIXES)
    matched = _matched(path)
    files = [match for match in matched if match.is_file() and match.suffix.lower() in known]
    if not files:
        what = f"{len(matched)} things, no picture or video among them" if matched else "nothing"
        raise DataError(f"the pattern '{printable(text)}' matches {what} ({', '.join(known)})")
    return files, fixed(str(path))


def _matched(pattern: Path) -> list[Path]:
    """Return what follows a pattern, with its ending in any case; what `is_hidden` and not named is left out."""
    last, top = pattern.name, len(fixed(str(pattern)).parts)
    plain = last == "**" or last.startswith(".")
    broad = pattern if plain else pattern.with_name("*")
    found = [Path(name) for name in glob.glob(str(broad), recursive=True)]  # noqa: PTH207 - patterns from the root too
    named = [path for path in found if plain or matches([path.name], [last])]
    known = set(pattern.parts)
    return sorted(path for path in named if not any(is_hidden(p) and p not in known for p in path.parts[top:]))


def _listed(lines: Iterable[str]) -> tuple[list[Path], Path]:
    names = []
    for line in lines:
        if line.strip():
            names.append(line.strip())
        if len(names) > MOST_LINES:
            raise DataError(f"the list on the standard input has more than {MOST_LINES} lines")
    if not names:
        raise DataError("input=-: the standard input holds no file names, one a line")
    if urls := [name for name in names if "://" in name]:
        raise ConfigError(f"the list holds the URL {printable(urls[0])}; download it, and give the file's path")
    paths = list(dict.fromkeys(Path(name).expanduser() for name in names))
    return paths, Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _name(path: Path, top: Path, keep_ending: bool) -> Path:
    inside = Path(os.path.relpath(path.absolute(), top.absolute()))
    # A listed path may climb; its result must not.
    inside = Path(*[part for part in inside.parts if part not in ("..", "/")])
    return inside if keep_ending else inside.with_suffix("")


def _refuse_twins(jobs: Sequence[PictureJob]) -> None:
    first: dict[Path, Path] = {}
    for job in jobs:
        if job.name in first:
            raise ConfigError(
                f"'{printable(str(first[job.name]))}' and '{printable(str(job.source))}' would be written to the same "
                f"file '{printable(str(job.name))}.png'; keep_ending=true keeps the endings in the names"
            )
        first[job.name] = job.source
