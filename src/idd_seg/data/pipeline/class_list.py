"""A list of classes in a YAML file: the only thing that a folder of pictures can't tell by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from idd_seg.errors import DataError

LIMIT = 1 << 20  # bytes of a class list
SHOWN = 20  # faults that are said at once
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
    colour gets one that differs from all others as far as can be.

    Raises:
        DataError: that names the file and every entry that can't be used.
    """
    path = Path(path).expanduser()
    found, written = _load(path)
    if not isinstance(found, dict) or not isinstance(found.get("classes"), list) or set(found) - {"classes", "ignore"}:
        raise DataError(f"{path}: a class list holds 'classes', a list, and may hold 'ignore', a list; nothing else")
    faults: list[str] = []
    texts = written.get("classes") if isinstance(written, dict) else None
    entries = []
    for i, raw in enumerate(found["classes"]):
        text = texts[i] if isinstance(texts, list) and i < len(texts) else None
        if (entry := _entry(raw, i, text, faults)) is not None:
            entries.append(entry)
    if len(found["classes"]) < 2:
        faults.append(f"there are {len(found['classes'])} classes, and at least 2 are needed")
    names = [name for name, _, _ in entries]
    faults += [f"two classes are called '{name}'" for name, number in Counter(names).items() if number > 1]
    label_values: dict[int, int] = {}
    for class_id, (name, _, values) in enumerate(entries):
        for value in values:
            if value in label_values:
                faults.append(f"the value {value} stands for '{names[label_values[value]]}' and for '{name}'")
            label_values.setdefault(value, class_id)
    ignore = found.get("ignore") or []
    if not isinstance(ignore, list):
        faults.append(f"'ignore' is a list of values or colours, got {ignore!r}")
        ignore = []
    ignored = [v for v in ignore if not isinstance(v, list) and _is_value(v, "ignore", faults)]
    faults += [
        f"the value {value} stands for '{names[label_values[value]]}', and is ignored"
        for value in ignored
        if value in label_values
    ]
    colours = [v for v in ignore if isinstance(v, list) and _is_colour(v, "ignore", faults)]
    if faults:
        raise DataError(_together(path, faults))
    return ClassList(names, _palette([colour for _, colour, _ in entries]), label_values, ignored, colours)


def _palette(given: Sequence[list[int] | None]) -> list[list[int]]:
    """Return the colours of all classes: those without one get colours that can be told apart from all others."""
    from idd_seg.ops.colours import distinct_colours  # needs OpenCV, for which the command line does not wait

    made = iter(distinct_colours(given.count(None), [colour for colour in given if colour is not None]))
    return [next(made) if colour is None else colour for colour in given]


def _together(path: Path, faults: Sequence[str]) -> str:
    """Say all that is wrong with a class list at once."""
    if len(faults) == 1:
        return f"{path}: {faults[0]}"
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n  ".join([f"{path}: {len(faults)} entries can't be used:", *faults[:SHOWN], *more])


def _load(path: Path) -> tuple[Any, Any]:
    """Return what the file holds, and the same with every value as the text that was written."""
    try:
        if path.stat().st_size > LIMIT:
            raise DataError(f"{path}: a class list of more than {LIMIT} bytes is none")
        text = path.read_text(encoding="utf-8-sig")
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        advice = "set data.classes=FILE"
        if isinstance(error, FileNotFoundError):
            advice += (
                ", or let python -m idd_seg.prepare classes=propose write it by the masks (with the same data.root)"
            )
        raise DataError(f"the class list '{path}' can't be read ({reason}); {advice}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: the class list is no YAML ({' '.join(str(error).split())})") from error


def _entry(raw: Any, index: int, written: Any, faults: list[str]) -> tuple[str, list[int] | None, list[int]] | None:
    """Return name, colour (None: it has none) and values of a class, or None after saying what is wrong with it."""
    if not isinstance(raw, dict):
        raw, written = {"name": raw}, {"name": written}
    if not isinstance(raw.get("name"), str) or set(raw) - KEYS:
        text = written.get("name") if isinstance(written, dict) else None
        hint = _quoted(raw["name"], text) if "name" in raw and not set(raw) - KEYS else ""
        form = f", or hold 'name' and no more than {', '.join(sorted(KEYS))}"
        faults.append(f"class {index} must be a name{hint or form}")
        return None
    name = raw["name"]
    values = raw.get("values", [raw.get("value", index)])
    if not isinstance(values, list) or ("value" in raw and "values" in raw):
        faults.append(f"class '{name}' has either a 'value', or 'values', a list")
        values = []
    colour = None
    if "colour" in raw and _is_colour(raw["colour"], name, faults):
        colour = raw["colour"]
    return name, colour, [value for value in values if _is_value(value, name, faults)]


def _quoted(raw: Any, written: Any) -> str:
    """Return the hint to quote a word that YAML takes for something else."""
    if isinstance(raw, dict | list | str) or not isinstance(written, str):
        return ""
    kind = {bool: "true or false", type(None): "nothing", int: "a number", float: "a number"}.get(type(raw), "a date")
    text = written.strip() or "none"
    return f", but YAML reads {text if written.strip() else 'an empty entry'} as {kind}: put it in quotes, '{text}'"


def _fault_of(raw: Any, name: str) -> str | None:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= 255:
        return f"'{name}': a value in a mask is a whole number, 0 to 255, got {raw!r}"
    return None


def _is_value(raw: Any, name: str, faults: list[str]) -> bool:
    fault = _fault_of(raw, name)
    faults += [] if fault is None else [fault]
    return fault is None


def _is_colour(raw: Any, name: str, faults: list[str]) -> bool:
    if not isinstance(raw, list) or len(raw) != 3:
        faults.append(f"'{name}': a colour is a list of three numbers, 0 to 255, got {raw!r}")
        return False
    before = len(faults)
    faults += [fault for channel in raw if (fault := _fault_of(channel, name))]
    return len(faults) == before
