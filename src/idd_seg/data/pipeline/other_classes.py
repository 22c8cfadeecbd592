"""The class list of another root, in the words of a training: its own values, the training's order of classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idd_seg.data.pipeline.class_list import ClassList, read_class_list
from idd_seg.errors import DataError


def with_own_classes(options: Mapping[str, Any], root: str | None) -> tuple[dict[str, Any], str | None]:
    """Return the options of `data=folder` at another root, with the values and colours of the class list there.

    Args:
        options: those of the training.
        root: where the files lie now; None at the place of the training.

    Returns:
        The options, and what is to be said of them.

    Raises:
        DataError: if that list names other classes, or can't be read.
    """
    plain = dict(options)
    listed = plain.get("classes")
    if not listed:
        return plain, None
    path = _place(Path(listed), Path(str(options.get("root", ""))), root)
    plain["classes"] = str(path)
    if not path.is_file():
        said = None if root is None else f"there is no class list '{path}'; the values of the training are taken"
        return plain, said
    try:
        found = read_class_list(path)
    except DataError as error:
        if root is None:
            return plain, f"the classes of the training are taken; {error}"
        raise
    names = list(plain["class_names"])
    if sorted(found.names) != sorted(names):
        if root is None:
            return plain, f"the classes of the training are taken; '{path}' names others by now"
        raise DataError(_difference(path, found.names, names))
    theirs = _mapped(found, names, plain)
    if root is None or _overridden(Path(listed), plain):
        differs = {key for key, value in theirs.items() if _differ(plain.get(key), value)}
        if differs and not (root is not None and _same_as_trained(Path(listed), found)):
            return plain, (
                f"the values of the training are taken, and '{path}' says other ones ({', '.join(sorted(differs))}); "
                "it was changed since, or options of the training said otherwise"
            )
        return plain, None
    said = None
    if found.names != names:
        said = f"classes by their names, in the order of the training: '{path}' has another order"
    elif any(_differ(plain.get(key), value) for key, value in theirs.items()):
        said = f"the values of '{path}' are taken; those of the training were others"
    return {**plain, **theirs}, said


def _place(listed: Path, before: Path, root: str | None) -> Path:
    """Return where the class list lies now: at the same place below the root, if it lay there."""
    if root is None:
        return listed.expanduser()
    inside = os.path.relpath(listed.expanduser().absolute(), before.expanduser().absolute())
    return listed.expanduser() if inside.startswith("..") else Path(root).expanduser() / inside


def _mapped(found: ClassList, names: list[str], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what masks are read by, with the class ids of the training."""
    ids = [names.index(name) for name in found.names]
    values = {value: ids[class_id] for value, class_id in found.label_values.items()}
    if plain.get("masks", "indices") == "indices":
        return {"label_values": values, "ignored": found.ignored}
    palette = [found.palette[found.names.index(name)] for name in names]
    return {"palette": palette, "ignored_colours": found.ignored_colours}


def _differ(before: Any, now: Any) -> bool:
    if isinstance(now, Mapping):
        return {int(key): value for key, value in (before or {}).items()} != dict(now)
    return [*(before or ())] != [*now]


def _overridden(listed: Path, plain: Mapping[str, Any]) -> bool:
    """Tell whether the training took other values than its class list says, as far as that can still be known."""
    try:
        found = read_class_list(listed)
    except DataError:
        return False
    if sorted(found.names) != sorted(plain["class_names"]):
        return False
    return any(_differ(plain.get(k), v) for k, v in _mapped(found, list(plain["class_names"]), plain).items())


def _same_as_trained(listed: Path, found: ClassList) -> bool:
    try:
        return read_class_list(listed) == found
    except DataError:
        return False


def _difference(path: Path, theirs: list[str], ours: list[str]) -> str:
    more = [name for name in theirs if name not in ours]
    less = [name for name in ours if name not in theirs]
    parts = [
        f"{words} {', '.join(repr(n) for n in names[:5])}" for words, names in (("has", more), ("lacks", less)) if names
    ]
    return (
        f"{path}: the class list {' and '.join(parts)}, against the {len(ours)} classes of the training "
        f"({', '.join(ours[:8])}{', ...' if len(ours) > 8 else ''}); a network is scored on the classes that it was "
        "trained for. Name them alike there"
    )
