"""List files of photographs and masks: whatever programs write, read right or refused with its line."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from idd_seg.data.pipeline.files import find_file, read_lines
from idd_seg.data.pipeline.picture_file import FORMATS, IMAGE_SUFFIXES
from idd_seg.errors import DataError

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
SEPARATORS = ("\t", ",", ";", " ")
MASK_WORDS = ("mask", "label", "annotation", "segmentation", "target", "gt")


class Line(NamedTuple):
    """A photograph, its mask where the line names it, and file and number of the line for messages."""

    image: Path
    label: Path | None
    where: str


def read_pairs(path: Path, root: Path, masks: str = "indices", *, labelled: bool = True) -> list[Line]:
    """Read a list file: a photograph in each line, in all of them or in none followed by its mask.

    Columns are separated by tabs, commas, semicolons or spaces, and may stand in quotes. Lines that begin with `#`, and
    a header of a table, are left out. Paths are relative to `root`, or absolute and inside of it.

    Args:
        masks: how masks are read, by which one is known that stands in the place of a photograph.
        labelled: whether masks are needed; else those that are named need not be there.

    Raises:
        DataError: that names the file and the line, for whatever can't be read so.
    """
    rows = []
    for number, text in read_lines(path):
        if text.startswith("#") and find_file(root, text) is None:
            continue
        rows.append((f"{path}, line {number}", words(text, root)))
    header = _header(rows)
    if header:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: the list file names no photograph")
    columns = len(rows[0][1])
    for where, names in rows:
        _check_names(where, names, columns)
    lines = []
    for where, names in rows:
        paths = [_place(root, name, where) for name in names]
        lines.append(Line(paths[0], paths[1] if len(paths) == 2 else None, where))
    if not labelled:
        lines = [Line(line.image, None, line.where) for line in lines]
    _refuse_missing(lines)
    _refuse_twice(lines)
    if columns == 2 and labelled:
        _refuse_swapped(lines[0], header, masks)
    return lines


def words(line: str, root: Path | None = None) -> list[str]:
    """Split a line into the names of files; spaces may belong to a name."""
    if root is not None and find_file(root, line) is not None:
        return [line]
    most = [_unquoted(line)]
    for separator in SEPARATORS:
        found = _split(line, separator)
        if len(found) > 1 and all(_is_picture(word) for word in found):
            return found
        if len(found) > 2 and _is_picture(found[0]) and len(most) == 1:
            most = found
    if len(most) == 1 and not _is_picture(most[0]):
        tables = [_split(line, separator) for separator in SEPARATORS[:3]]
        most = max([most, *tables], key=len)
    return most


def _split(line: str, separator: str) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except (csv.Error, StopIteration):
        row = line.split(separator)
    return [word for word in (_unquoted(word) for word in row) if word]


def _unquoted(word: str) -> str:
    word = word.strip()
    return word[1:-1].strip() if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _header(rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Return the names of the columns, if the first line has such."""
    if len(rows) < 2:
        return []
    first, second = rows[0][1], rows[1][1]
    is_header = not any(_is_picture(word) or "/" in word or "\\" in word for word in first)
    return first if is_header and all(_is_picture(word) for word in second) and len(first) == len(second) else []


def _check_names(where: str, names: Sequence[str], columns: int) -> None:
    if len(names) > 2:
        raise DataError(
            f"{where}: {len(names)} columns ('{names[-1]}' in the last); a line is a photograph, or a photograph and "
            "its mask. Remove the others"
        )
    if bad := [name for name in names if not _is_picture(name)]:
        raise DataError(
            f"{where}: '{bad[0]}' does not end as a picture does ({', '.join(IMAGE_SUFFIXES)}); write the whole path "
            "below data.root, with its ending"
        )
    if len(names) != columns:
        raise DataError(
            f"{where}: some lines name a photograph and a mask, others only one file; this one has {len(names)} "
            f"name{'s' if len(names) > 1 else ''}, the first {columns}"
        )


def _place(root: Path, name: str, where: str) -> Path:
    """Return the path of a listed name, below `root`."""
    top = str(root.absolute())
    plain = name if find_file(root, name) is not None else name.replace("\\", "/")
    path = os.path.normpath(os.path.join(top, plain))  # noqa: PTH118 - an absolute name stays one
    if ".." in Path(plain).parts or plain[1:2] == ":" or not path.startswith(os.path.normpath(top).rstrip("/") + "/"):
        raise DataError(f"{where}: '{name}' leads out of the data set; paths are relative to data.root={root}")
    inside = os.path.relpath(path, top)
    return find_file(root, inside) or root / inside


def _refuse_missing(lines: Sequence[Line]) -> None:
    for what, paths in (("image", [line.image for line in lines]), ("label", [line.label for line in lines])):
        missing = [i for i, path in enumerate(paths) if path is not None and not path.is_file()]
        if missing:
            raise DataError(
                f"{lines[missing[0]].where}: {len(missing)} of {len(lines)} samples have no {what} file: "
                f"{', '.join(str(paths[i]) for i in missing[:3])}"
            )


def _refuse_twice(lines: Sequence[Line]) -> None:
    first: dict[str, Line] = {}
    for line in lines:
        real = os.path.realpath(line.image)
        if real in first:
            before = first[real]
            number = before.where.rpartition(" ")[2]
            same = "" if before.image == line.image else f", as '{before.image}'"
            raise DataError(
                f"{line.where}: the photograph '{line.image}' stands in line {number} already{same}; remove one of them"
            )
        first[real] = line


def _refuse_swapped(line: Line, header: Sequence[str], masks: str) -> None:
    """Refuse a list whose first column are the masks, as its header or its first two files say."""
    names = [any(word in column.lower() for word in MASK_WORDS) for column in header]
    if names != [True, False] and not _looks_swapped(line, masks):
        return
    raise DataError(
        f"{line.where}: '{line.image}' looks like the mask, and stands before the photograph; write the photograph "
        "first, then its mask"
    )


def _looks_swapped(line: Line, masks: str) -> bool:
    try:
        with Image.open(line.image, formats=FORMATS) as first, Image.open(line.label or "", formats=FORMATS) as second:
            if second.format == "JPEG":
                return first.format != "JPEG"
            indices = masks == "indices" and second.mode in ("RGB", "RGBA") and first.mode in ("P", "L", "1")
            return indices or (masks == "palette" and first.mode == "P" and second.mode != "P")
    except (OSError, ValueError, SyntaxError):
        return False  # whoever reads them says why
