"""`data.unlabelled`: which photographs a folder, a pattern or a list file means."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from idd_seg.data.pipeline.files import find_file, walk_names
from idd_seg.data.pipeline.list_file import LIST_SUFFIXES
from idd_seg.data.pipeline.pairing import fixed, matches
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES
from idd_seg.data.unlabelled.names import Names
from idd_seg.data.unlabelled.photographs import Photographs, Unlabelled
from idd_seg.data.unlabelled.shards import Shards
from idd_seg.errors import DataError

OPTION = "data.unlabelled"
SHARDS, COMPRESSED = ".tar", (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST = 10**6
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def find_unlabelled(text: str, root: Path | None, kept: Path | None = None) -> Unlabelled:
    """Return the photographs that `data.unlabelled` means.

    Args:
        text: a folder, all pictures below it; a pattern, `**` means any folders; a list file, a path a line; tar
            shards, as a pattern or with numbers as in `{000..099}.tar`.
        root: what relative paths begin at, those in a list file too; None is the working directory.
        kept: folder for the indices of shards.

    Raises:
        DataError: if there is nothing, or no picture.
    """
    base = (root or Path()).expanduser()
    text = str(Path(text).expanduser())
    if text.lower().endswith(LIST_SUFFIXES):
        return _listed(base, text)
    if text.lower().endswith(SHARDS):
        return Shards(_shards(base, text), kept)
    if text.lower().endswith(COMPRESSED):
        raise DataError(f"{OPTION}={text}: compressed shards can't be read at any place; unpack them to .tar")
    return _found(base, text)


def _found(base: Path, text: str) -> Photographs:
    folder = find_file(base, text) or base / text
    if folder.is_file() and folder.suffix.lower() in IMAGE_SUFFIXES:
        return Photographs(base, Names([text]))
    if folder.is_dir():
        found = sorted(walk_names(folder))
        if not found:
            raise DataError(f"{OPTION}={text}: the folder '{folder}' holds no {', '.join(IMAGE_SUFFIXES)} files")
        return Photographs(folder, Names(found))
    if not glob.has_magic(text):
        raise DataError(f"{OPTION}={text}: there is no file or folder '{folder}'{_relative_to(base, text)}")
    inside = fixed(text)
    folder = find_file(base, str(inside)) or base / inside
    rest = Path(text).parts[len(inside.parts) :]
    names = walk_names(folder) if folder.is_dir() else []
    found = sorted(name for name in names if matches(name.split("/"), rest))
    if not found:
        raise DataError(
            f"{OPTION}={text} finds no {', '.join(IMAGE_SUFFIXES)} files in '{folder}'{_relative_to(base, text)}"
        )
    return Photographs(folder, Names(found))


def _shards(base: Path, text: str) -> list[Path]:
    found = []
    for one in expanded(text):
        if not glob.has_magic(one):
            found.append(base / one)
            continue
        inside = fixed(one)
        folder, rest = base / inside, Path(one).parts[len(inside.parts) :]
        names = walk_names(folder, (SHARDS,)) if folder.is_dir() else []
        found += [folder / name for name in sorted(names) if matches(name.split("/"), rest)]
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        what = f"{len(missing)} of {len(found)} shards are not there: {missing[0]}" if missing else "finds no shard"
        raise DataError(f"{OPTION}={text}: {what}{_relative_to(base, text)}")
    return found


def expanded(text: str) -> list[str]:
    """Write out `{000..099}`, numbers of equal width, and `{a,b}`; at most `MOST` of them."""
    part = BRACES.search(text)
    if part is None:
        return [text]
    first, last, words = part.groups()
    if words is None:
        width = len(first) if first.startswith("0") else 0
        if not 0 <= int(last) - int(first) < MOST:
            raise DataError(f"{OPTION}={text}: {part[0]} is no range of up to {MOST} numbers")
        choices = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = words.split(",")
    front, rest = text[: part.start()], expanded(text[part.end() :])
    return [f"{front}{choice}{end}" for choice in choices for end in rest]


def _relative_to(base: Path, text: str) -> str:
    if Path(text).is_absolute():
        return ""
    where = "the working directory" if base == Path() else f"data.root={base}"
    return f"; it is relative to {where}, and may be an absolute path"


def _listed(base: Path, text: str) -> Photographs:
    path = find_file(base, text) or base / text
    names = Names(_lines(path, base))
    if not len(names):
        raise DataError(f"{OPTION}={text}: the list file '{path}' names no photograph")
    return Photographs(base, names)


def _lines(path: Path, base: Path) -> Iterator[str]:
    """Yield the paths of a list file, those inside of `base` relative to it; line by line, since there may be many."""
    top = str(base.absolute()).rstrip("/") + "/"
    try:
        with path.open("rb") as file:
            marked = file.read(2) in BYTE_ORDER_MARKS
        with path.open(encoding="utf-16" if marked else "utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                name = line.strip()
                if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
                    name = name[1:-1]
                if not name or name.startswith("#"):
                    continue
                if not name.lower().endswith(IMAGE_SUFFIXES) or "\0" in name:
                    raise DataError(
                        f"{path}, line {number}: '{name}' does not end as a picture does "
                        f"({', '.join(IMAGE_SUFFIXES)}); a line of {OPTION} is the path of one photograph"
                    )
                yield name.removeprefix(top)
    except FileNotFoundError as error:
        raise DataError(f"{OPTION}: there is no list file '{path}'{_relative_to(base, str(path))}") from error
    except OSError as error:
        raise DataError(f"{OPTION}: the list file '{path}' can't be read ({error.strerror})") from error
    except UnicodeError as error:
        raise DataError(f"{OPTION}: '{path}' can't be read as text ({error}); save it as UTF-8") from error
