"""The pictures on which a run does worst, and those that changed most against its twin, packed for a page."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idd_seg.plotting.error_maps import COLOURS, error_map, shares
from idd_seg.reporting.curves import short
from idd_seg.reporting.files import LIMITS, MEBIBYTE, UnreadableError, number, part, read_bytes, text_of
from idd_seg.reporting.masks import ids_of, png_of, shown_in, uri_of

FILE = "scored.zip"
FORMAT = 1
ARCHIVE = 64 * MEBIBYTE
IMAGES = 4096  # that are read of one run


@dataclass
class Scored:
    """The scored images of a run: an open archive, and what its list says of each image, by name."""

    archive: zipfile.ZipFile
    split: str
    length: int | None
    images: dict[str, dict[str, Any]]

    def miou(self, name: str, network: str = "student") -> float | None:
        return number(part(self.images[name], "miou").get(network))

    def read(self, name: str, kind: str) -> bytes:
        return _member(self.archive, self.images[name].get(kind), LIMITS[".png"])


def read_scored(folder: Path) -> Scored | None:
    """Open a run's scored images; None where it has none.

    Raises:
        UnreadableError: for a file that can't be used.
    """
    path = folder / "exhibits" / FILE
    if not path.exists():
        return None
    if path.is_symlink() or path.parent.is_symlink():
        raise UnreadableError(f"{FILE} is a link and is not followed")
    try:
        archive = zipfile.ZipFile(io.BytesIO(read_bytes(path, ARCHIVE)))
        content = json.loads(_member(archive, "scored.json", LIMITS[".json"]))
    except (zipfile.BadZipFile, ValueError, RecursionError, NotImplementedError):
        raise UnreadableError(f"{FILE} is broken") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnreadableError(f"{FILE} has an unknown format; {FORMAT} is known")
    images = content.get("images")
    found = [entry for entry in images[:IMAGES] if isinstance(entry, dict)] if isinstance(images, list) else []
    length = number(content.get("length"))
    by_name = {text_of(entry.get("name", ""), 300): entry for entry in found}
    return Scored(archive, text_of(content.get("split", ""), 40), None if length is None else int(length), by_name)


def _member(archive: zipfile.ZipFile, name: object, limit: int) -> bytes:
    try:
        info = archive.getinfo(str(name))
        # Only stored members: none unpacks to more than the archive has.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
            raise UnreadableError(f"{text_of(name, 80)} in {FILE} is compressed or too large")
        return archive.read(info)
    except KeyError:
        raise UnreadableError(f"{text_of(name, 80)} is missing in {FILE}") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError):
        raise UnreadableError(f"{text_of(name, 80)} in {FILE} is broken") from None


def read_cases(folder: Path, twin: Path | None, classes: int, most: int, notes: list[str]) -> dict[str, Any] | None:
    """Return the pictures that the page shows of a run; what is broken is left out and noted.

    Args:
        twin: folder of the run to compare with.
        classes: their number; ids from there on are no class.
        most: pictures of each kind: the worst, the most improved, the most worsened.
    """
    try:
        own = read_scored(folder)
    except UnreadableError as error:
        notes.append(f"exhibits: {error}")
        return None
    if own is None or most < 1 or classes < 1:
        return None
    try:
        other = None if twin is None else read_scored(twin)
    except UnreadableError as error:
        notes.append(f"exhibits of the twin: {error}")
        other = None
    chosen = _choose(own, other, most)
    pictures: dict[str, Any] = {}
    for name in dict.fromkeys(name for names in chosen.values() for name in names):
        try:
            pictures[name] = _pack(own, other, name, classes)
        except UnreadableError as error:
            notes.append(f"exhibits: {error}")
    kept = {kind: [name for name in names if name in pictures] for kind, names in chosen.items()}
    return {"split": own.split, "scored": len(own.images), "of": own.length, "chosen": kept, "pictures": pictures}


def _choose(own: Scored, other: Scored | None, most: int) -> dict[str, list[str]]:
    mious = {name: miou for name in own.images if (miou := own.miou(name)) is not None}
    chosen = {"worst": sorted(mious, key=lambda name: mious[name])[:most]}
    if other is not None:
        before = {name: miou for name in mious if name in other.images and (miou := other.miou(name)) is not None}
        changes = {name: mious[name] - before[name] for name in before}
        ordered = sorted(changes, key=lambda name: changes[name])
        chosen["improved"] = [name for name in ordered[::-1] if changes[name] > 0][:most]
        chosen["worsened"] = [name for name in ordered if changes[name] < 0][:most]
    return chosen


def _pack(own: Scored, other: Scored | None, name: str, classes: int) -> dict[str, Any]:
    content = {kind: own.read(name, kind) for kind in _kinds(own, name)}
    mious = {kind: own.miou(name, kind) for kind in ("student", "teacher")}
    if other is not None and name in other.images:
        if other.read(name, "truth") != content["truth"]:
            raise UnreadableError(f"the twin has another truth for {name}")
        content["twin"] = other.read(name, "student")
        mious["twin"] = other.miou(name)
    ids = {kind: ids_of(found, f"{kind} of {name}") for kind, found in content.items() if kind != "image"}
    if len({found.shape for found in ids.values()}) > 1:
        raise UnreadableError(f"the masks of {name} differ in size")
    errors = error_map(ids["truth"], ids["student"], classes, ids.get("twin"))
    won, lost = shares(errors)
    return {
        **{kind: uri_of(found, f"{kind} of {name}") for kind, found in content.items()},
        "errors": uri_of(png_of(errors, COLOURS), name),
        "miou": {kind: short(value, 4) for kind, value in mious.items() if value is not None},
        "won": short(won, 4),
        "lost": short(lost, 4),
        "shown": shown_in(list(ids.values()), classes),
    }


def _kinds(own: Scored, name: str) -> Sequence[str]:
    there = own.images[name].get("teacher") is not None
    return ("image", "truth", "student", *(("teacher",) if there else ()))
