"""A run's exhibits, checked and packed for a page: pictures as data, matrices as short numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from idd_seg.reporting.curves import short
from idd_seg.reporting.files import LIMITS, UnreadableError, number, part, read_bytes, read_mapping, text_of
from idd_seg.reporting.masks import ids_of, shown_in, uri_of

SAMPLES = 6
CLASSES = 256
KINDS = ("image", "truth", "student", "teacher")
Matrix = list[list[float | None]]


def read_exhibits(folder: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return what the page shows of `exhibits/`; what is missing or broken is left out and noted."""
    if not (folder / "exhibits").is_dir():
        return None
    try:
        content = read_mapping(folder / "exhibits" / "exhibits.json")
    except UnreadableError as error:
        notes.append(f"exhibits: {error}")
        return None
    if content.get("format") != 1:
        notes.append(f"exhibits: format {text_of(content.get('format'), 20)} is not known; 1 is")
        return None
    names = content.get("class_names")
    names = [text_of(name, 80) for name in names[:CLASSES]] if isinstance(names, list) else []
    distances = part(content, "class_distances")
    samples = content.get("samples")
    return {
        "split": text_of(content.get("split", ""), 40),
        "classes": names,
        "palette": _palette(content.get("palette")),
        "samples": _samples(folder / "exhibits", samples if isinstance(samples, list) else [], len(names), notes),
        "distances": {k: _matrix(distances.get(k), len(names), f"class_distances.{k}", notes) for k in KINDS[2:]},
        "confusion": _matrix(content.get("confusion"), len(names), "confusion", notes, 15),
    }


def _palette(colours: object) -> list[list[int]]:
    """Return colours of three bytes each, up to the first that is none."""
    found: list[list[int]] = []
    for colour in colours[:CLASSES] if isinstance(colours, list) else []:
        if not (
            isinstance(colour, list) and len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
        ):
            break
        found.append(colour)
    return found


def _samples(folder: Path, samples: list[Any], classes: int, notes: list[str]) -> list[dict[str, Any]]:
    found = []
    for sample in samples[:SAMPLES]:
        if not isinstance(sample, dict):
            continue
        pictures: dict[str, bytes] = {}
        for kind in KINDS:
            if sample.get(kind) is not None:
                try:
                    pictures[kind] = _picture(folder, sample[kind])
                except UnreadableError as error:
                    notes.append(f"exhibits: {error}")
        if pictures:
            uris = {kind: uri_of(content, kind) for kind, content in pictures.items()}
            shown = _shown([content for kind, content in pictures.items() if kind != "image"], classes)
            found.append({"name": text_of(sample.get("name", ""), 120), "shown": shown, **uris})
    return found


def _shown(masks: list[bytes], classes: int) -> list[int]:
    """Return the classes that masks show; all, where that can't be told."""
    try:
        return shown_in([ids_of(content, "a mask") for content in masks], classes)
    except (UnreadableError, ValueError):
        return list(range(classes))


def _picture(folder: Path, name: object) -> bytes:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise UnreadableError(f"'{text_of(name, 80)}' is not the name of a picture in it")
    path = folder / name
    if path.is_symlink():
        raise UnreadableError(f"{text_of(name, 80)} is a link and is not followed")
    content = read_bytes(path, LIMITS[".png"])
    uri_of(content, text_of(name, 80))
    return content


def _matrix(values: object, size: int, name: str, notes: list[str], digits: int = 4) -> Matrix | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != size or size == 0:
        notes.append(f"exhibits: {name} is not a square of the {size} classes")
        return None
    rows: Matrix = []
    for row in values:
        if not isinstance(row, list) or len(row) != size:
            notes.append(f"exhibits: {name} is not a square of the {size} classes")
            return None
        rows.append([None if (v := number(cell)) is None else short(v, digits) for cell in row])
    return rows
