"""A list of classes in a YAML file: the only thing that a folder of pictures can't tell by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from idd_seg.errors import DataError

LIMIT = 1 << 20  # bytes of a class list
KEYS = {"name", "colour", "value", "values"}


@dataclass(frozen=True)
class ClassList:
    """K classes.

    Attributes:
        names: of the classes 0 to K-1.
        palette: their RGB colours.
        label_values: value in a mask -> class id.
        ignored: values that take no part.
        ignored_colours: colours that take no part.
    """

    names: list[str]
    palette: list[list[int]]
    label_values: dict[int, int]
    ignored: list[int]
    ignored_colours: list[list[int]]

    @property
    def count(self) -> int:
        """K."""
        return len(self.names)


def read_class_list(path: str | Path) -> ClassList:
    """Read a class list.

    The file holds `classes`, a list of names or of {name, colour, value or values}, and may hold `ignore`, a list of
    values or colours that take no part. A class without a value has its place in the list, from 0; one without a
    colour gets one.

    Raises:
        DataError: that names the file and the entry, for whatever can't be used.
    """
    path = Path(path).expanduser()
    found = _load(path)
    if not isinstance(found, dict) or not isinstance(found.get("classes"), list) or set(found) - {"classes", "ignore"}:
        raise DataError(f"{path}: a class list holds 'classes', a list, and may hold 'ignore', a list; nothing else")
    entries = [_entry(raw, i, path) for i, raw in enumerate(found["classes"])]
    if len(entries) < 2:
        raise DataError(f"{path}: there are {len(entries)} classes, and at least 2 are needed")
    names = [name for name, _, _ in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}: two classes are called '{twice[0]}'")
    label_values: dict[int, int] = {}
    for class_id, (name, _, values) in enumerate(entries):
        for value in values:
            if value in label_values:
                raise DataError(f"{path}: the value {value} stands for '{names[label_values[value]]}' and for '{name}'")
            label_values[value] = class_id
    ignore = found.get("ignore") or []
    if not isinstance(ignore, list):
        raise DataError(f"{path}: 'ignore' is a list of values or colours, got {ignore!r}")
    ignored = [_value(v, "ignore", path) for v in ignore if not isinstance(v, list)]
    if both := [value for value in ignored if value in label_values]:
        raise DataError(f"{path}: the value {both[0]} stands for '{names[label_values[both[0]]]}', and is ignored")
    colours = [_colour(v, "ignore", path) for v in ignore if isinstance(v, list)]
    return ClassList(names, [colour for _, colour, _ in entries], label_values, ignored, colours)


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > LIMIT:
            raise DataError(f"{path}: a class list of more than {LIMIT} bytes is none")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"the class list '{path}' can't be read ({reason}); set data.classes=FILE") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: the class list is no YAML ({' '.join(str(error).split())})") from error


def _entry(raw: Any, index: int, path: Path) -> tuple[str, list[int], list[int]]:
    """Return name, colour and values of a class."""
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str) or set(raw) - KEYS:
        raise DataError(
            f"{path}: class {index} must be a name, or hold 'name' and no more than {', '.join(sorted(KEYS))}"
        )
    name = raw["name"]
    values = raw.get("values", [raw.get("value", index)])
    if not isinstance(values, list) or ("value" in raw and "values" in raw):
        raise DataError(f"{path}: class '{name}' has either a 'value', or 'values', a list")
    colour = _colour(raw["colour"], name, path) if "colour" in raw else bit_colour(index + 1)
    return name, colour, [_value(value, name, path) for value in values]


def _value(raw: Any, name: str, path: Path) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= 255:
        raise DataError(f"{path}, '{name}': a value in a mask is a whole number, 0 to 255, got {raw!r}")
    return raw


def _colour(raw: Any, name: str, path: Path) -> list[int]:
    if not isinstance(raw, list) or len(raw) != 3:
        raise DataError(f"{path}, '{name}': a colour is a list of three numbers, 0 to 255, got {raw!r}")
    return [_value(channel, name, path) for channel in raw]


def bit_colour(index: int) -> list[int]:
    """Return colour `index` of Pascal VOC's palette: the bits of the index, dealt out to the channels in turn."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> channel) & 1) << (7 - place)
        index >>= 3
    return channels
