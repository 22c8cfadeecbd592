"""Which mask belongs to which photograph, by their names."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from idd_seg.data.pipeline.files import one_form
from idd_seg.errors import DataError

AUTO = "auto"
SEPARATORS = "_-. "  # between the name of a photograph and what masks have in addition
SHOWN = 3


class Suffixes(NamedTuple):
    """What names have behind the part that a photograph and its mask share.

    Attributes:
        image: of photographs, such as `_leftImg8bit`.
        label: of masks, such as `_gtFine_labelIds`.
    """

    image: str
    label: str


def pair(
    images: Mapping[Path, Path], masks: Mapping[Path, Path], wanted: Suffixes, where: str
) -> tuple[list[Path], Suffixes]:
    """Return the mask of each photograph, and what their names have beside the part that they share.

    Args:
        images, masks: file -> its path below the fixed part of its pattern. Names without ending decide; where these
            are not unique, paths do.
        wanted: what the names have; where one is `auto`, the same name is taken, or else the only suffixes with which
            every photograph has a mask.
        where: the option that finds the masks, for messages.

    Raises:
        DataError: that names what has no mask, or several.
    """
    try:
        return _paired(images, masks, wanted, where, _name)
    except _NotUniqueError:
        try:
            return _paired(images, masks, wanted, where, _path)
        except _NotUniqueError as error:
            raise DataError(str(error)) from None


class _NotUniqueError(Exception):
    pass


def _name(path: Path) -> str:
    return one_form(path.stem)


def _path(path: Path) -> str:
    return one_form(path.with_suffix("").as_posix())


def _paired(
    images: Mapping[Path, Path], masks: Mapping[Path, Path], wanted: Suffixes, where: str, key: Callable[[Path], str]
) -> tuple[list[Path], Suffixes]:
    names = [key(inside) for inside in images.values()]
    if key is _name and len(set(names)) < len(names):
        raise _NotUniqueError
    by_name: dict[str, list[Path]] = {}
    for path, inside in masks.items():
        by_name.setdefault(key(inside), []).append(path)
    chosen = _suffixes(names, by_name, wanted, where)
    called = [_of_mask(name, chosen) for name in names]
    for name in called:
        if len(found := by_name.get(name, [])) > 1:
            raise _NotUniqueError(f"two masks are called '{name}': '{found[0]}' and '{found[1]}'; remove one of them")
    missing = [path for path, name in zip(images, called, strict=True) if name not in by_name]
    if missing:
        same = f"of the same name with '{chosen.label}'" if chosen.label else "of the same name"
        if chosen.image:
            same += f" in place of '{chosen.image}'"
        example = f" The masks are called as '{next(iter(masks))}'." if masks else ""
        raise DataError(
            f"{len(missing)} of {len(names)} photographs have no mask {same} in {where}: "
            f"{', '.join(str(path) for path in missing[:SHOWN])}.{example} data.label_suffix=_mask says what masks "
            "have in addition, data.image_suffix=_image what photographs have; a list file (data.images) pairs any "
            "names"
        )
    return [by_name[name][0] for name in called], chosen


def _of_mask(name: str, suffixes: Suffixes) -> str:
    """Return what the mask of a photograph is called."""
    return name.removesuffix(one_form(suffixes.image)) + one_form(suffixes.label)


def _suffixes(names: Sequence[str], by_name: Mapping[str, Sequence[Path]], wanted: Suffixes, where: str) -> Suffixes:
    """Return the only suffixes with which every photograph has a mask; nothing where that is none."""
    plain = Suffixes("" if wanted.image == AUTO else wanted.image, "" if wanted.label == AUTO else wanted.label)
    if AUTO not in wanted or not names or all(_of_mask(name, plain) in by_name for name in names):
        return plain
    shared = ["", *_shared(names)] if wanted.image == AUTO else [one_form(wanted.image)]
    for image in shared:
        found = _fitting(names, by_name, image) if wanted.label == AUTO else [wanted.label]
        found = [label for label in found if all(_of_mask(name, Suffixes(image, label)) in by_name for name in names)]
        if len(found) > 1:
            raise DataError(
                f"each photograph has several masks in {where}, with {', '.join(found)} behind its name; choose one: "
                f"data.label_suffix={found[0]}"
            )
        if found:
            return Suffixes(image, found[0])
    return plain


def _shared(names: Sequence[str]) -> list[str]:
    """Return what all photographs' names end in, from the shortest: words, since numbers tell pictures apart."""
    first = min(names, key=len)
    ends = [first[i:] for i in range(len(first) - 1, 0, -1) if first[i] in SEPARATORS]
    return [
        end
        for end in ends
        if len(names) > 1 and any(char.isalpha() for char in end) and all(name.endswith(end) for name in names)
    ]


def _fitting(names: Sequence[str], by_name: Mapping[str, Sequence[Path]], image: str) -> list[str]:
    """Return what the first photograph's masks have behind its name."""
    first = min(names).removesuffix(image)
    found = {mask[len(first) :] for mask in by_name if mask.startswith(first)}
    return sorted(suffix for suffix in found if not suffix or suffix[0] in SEPARATORS)


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
