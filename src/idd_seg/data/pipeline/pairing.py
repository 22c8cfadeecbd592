"""Which mask belongs to which photograph, by their names."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from idd_seg.data.pipeline.files import one_form
from idd_seg.errors import DataError

AUTO = "auto"
SEPARATORS = "_-. "  # between the name of a photograph and what masks have in addition
SHOWN = 3


def pair(images: Mapping[Path, Path], masks: Mapping[Path, Path], suffix: str, where: str) -> tuple[list[Path], str]:
    """Return the mask of each photograph, and what the masks' names have in addition.

    Args:
        images, masks: file -> its path below the fixed part of its pattern. Names without ending decide; where these
            are not unique, paths do.
        suffix: what masks have in addition to a photograph's name; `auto` takes the same name, or else the only suffix
            with which every photograph has a mask.
        where: the option that finds the masks, for messages.

    Raises:
        DataError: that names what has no mask, or several.
    """
    try:
        return _paired(images, masks, suffix, where, _name)
    except _NotUniqueError:
        try:
            return _paired(images, masks, suffix, where, _path)
        except _NotUniqueError as error:
            raise DataError(str(error)) from None


class _NotUniqueError(Exception):
    pass


def _name(path: Path) -> str:
    return one_form(path.stem)


def _path(path: Path) -> str:
    return one_form(path.with_suffix("").as_posix())


def _paired(
    images: Mapping[Path, Path], masks: Mapping[Path, Path], suffix: str, where: str, key: Callable[[Path], str]
) -> tuple[list[Path], str]:
    names = [key(inside) for inside in images.values()]
    if key is _name and len(set(names)) < len(names):
        raise _NotUniqueError
    by_name: dict[str, list[Path]] = {}
    for path, inside in masks.items():
        by_name.setdefault(key(inside), []).append(path)
    chosen = _suffix(names, by_name, where) if suffix == AUTO else suffix
    wanted = [name + one_form(chosen) for name in names]
    for name in wanted:
        if len(found := by_name.get(name, [])) > 1:
            raise _NotUniqueError(f"two masks are called '{name}': '{found[0]}' and '{found[1]}'; remove one of them")
    missing = [path for path, name in zip(images, wanted, strict=True) if name not in by_name]
    if missing:
        same = f"of the same name with '{chosen}'" if chosen else "of the same name"
        example = f" The masks are called as '{next(iter(masks))}'." if masks else ""
        raise DataError(
            f"{len(missing)} of {len(names)} photographs have no mask {same} in {where}: "
            f"{', '.join(str(path) for path in missing[:SHOWN])}.{example} data.label_suffix=_mask says what masks "
            "have in addition; a list file (data.images) pairs any names"
        )
    return [by_name[name][0] for name in wanted], chosen


def _suffix(names: Sequence[str], by_name: Mapping[str, Sequence[Path]], where: str) -> str:
    """Return the only suffix with which every photograph has a mask; nothing where that is the empty one, or none."""
    if not names or all(name in by_name for name in names):
        return ""
    first = min(names)
    candidates = {mask[len(first) :] for mask in by_name if mask.startswith(first)} - {""}
    fitting = sorted(
        suffix for suffix in candidates if suffix[0] in SEPARATORS and all(name + suffix in by_name for name in names)
    )
    if len(fitting) > 1:
        raise DataError(
            f"each photograph has several masks in {where}, with {', '.join(fitting)} behind its name; choose one: "
            f"data.label_suffix={fitting[0]}"
        )
    return fitting[0] if fitting else ""


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether folders and file name follow a pattern whose `**` stands for any number of folders.

    Endings match in any case, and letters in either form of Unicode.
    """
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    if not names:
        return False
    if len(names) == 1 and len(pattern) == 1:
        return fnmatchcase(_lower_ending(names[0]), _lower_ending(pattern[0]))
    return fnmatchcase(one_form(names[0]), one_form(pattern[0])) and matches(names[1:], pattern[1:])


def _lower_ending(name: str) -> str:
    return re.sub(r"\.[^.]*$", lambda found: found.group().lower(), one_form(name))


def fixed(pattern: str) -> Path:
    """Return the folders of a pattern before its first wildcard."""
    parts = Path(pattern).parts[:-1]
    end = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:end])
