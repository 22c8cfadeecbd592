"""`prepare classes=propose`: a class list from the masks themselves, for somebody to put the names in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.errors import DataError
from idd_seg.ops.colours import distinct_colours

READERS = 8  # files at once
MOST = 254  # classes of 8-bit labels
IGNORED = 255
PROPOSED = re.compile(r"class \d+(-\d+)*")  # a name, before somebody has put in a better one


@dataclass(frozen=True)
class Proposal:
    """What masks hold.

    Attributes:
        masks: how they are to be read, `indices` or `rgb`.
        keys: the values, or the colours as one number, in their order.
        pixels, pictures: of each key, its pixels and the masks that hold it.
        colours: RGB, of each key.
        number: of masks.
    """

    masks: str
    keys: list[int]
    pixels: list[int]
    pictures: list[int]
    colours: list[list[int]]
    number: int


def propose(paths: Sequence[Path]) -> Proposal:
    """Read all masks, and propose a class for each value or colour that they hold.

    Raises:
        DataError: for a mask that can't be read, or more colours than there can be classes.
    """
    with Image.open(paths[0]) as first:
        kind, palette = ("rgb" if first.mode in ("RGB", "RGBA") else "indices"), first.getpalette()
    pixels: dict[int, int] = {}
    pictures: dict[int, int] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for path, found in zip(paths, pool.map(lambda path: _count(path, kind), paths), strict=True):
            for key, number in found.items():
                pixels[key] = pixels.get(key, 0) + number
                pictures[key] = pictures.get(key, 0) + 1
            if len(pixels) > MOST + 1:
                raise DataError(
                    f"{path}: the masks hold more than {MOST} {'colours' if kind == 'rgb' else 'values'} by now; masks "
                    "that were stored as JPEG or scaled smoothly have lost their classes"
                )
    keys = sorted(pixels)
    colours = [_rgb(key) for key in keys] if kind == "rgb" else _of_palette(keys, palette)
    colours = colours or distinct_colours(len(keys))
    return Proposal(kind, keys, [pixels[key] for key in keys], [pictures[key] for key in keys], colours, len(paths))


def _count(path: Path, kind: str) -> dict[int, int]:
    label = read_label(path, kind).astype(np.int64)
    flat = label.ravel() if label.ndim == 2 else (label[..., 0] << 16 | label[..., 1] << 8 | label[..., 2]).ravel()
    return dict(zip(*(found.tolist() for found in np.unique(flat, return_counts=True)), strict=True))


def _rgb(key: int) -> list[int]:
    return [key >> 16, key >> 8 & 255, key & 255]


def _of_palette(keys: Sequence[int], palette: Sequence[int] | None) -> list[list[int]] | None:
    """Return a palette's colours of some values, if all are there and differ."""
    if palette is None or 3 * max(keys) + 3 > len(palette):
        return None
    found = [list(palette[3 * key : 3 * key + 3]) for key in keys]
    grey = all(colour[0] == colour[1] == colour[2] for colour in found)
    return None if grey or len({tuple(colour) for colour in found}) < len(found) else found


def class_list_of(proposal: Proposal) -> str:
    """Return the text of `classes.yaml`, with the share of each class behind it.

    Of values beside 255 two or more are classes, and 255 takes no part; 0 and 255 alone are two classes.
    """
    whole = sum(proposal.pixels)
    rows = list(zip(proposal.keys, proposal.pixels, proposal.pictures, proposal.colours, strict=True))
    ignored = [row for row in rows if proposal.masks == "indices" and row[0] == IGNORED and len(rows) > 2]
    lines = [
        f"# {len(rows) - len(ignored)} classes, by what {proposal.number} masks hold. Put in their names; a value",
        "# that stands for nothing, or for what nobody has labelled, belongs into 'ignore'.",
        "classes:",
    ]
    for row in rows:
        if row in ignored:
            continue
        key, pixels, pictures, colour = row
        value = "" if proposal.masks == "rgb" else f"value: {key}, "
        share = f"{100 * pixels / whole:.2g} % of the pixels, in {pictures} masks"
        name = "-".join(map(str, colour)) if proposal.masks == "rgb" else str(key)
        lines.append(f'  - {{name: "class {name}", {value}colour: {colour}}} # {share}')
    lines += [f"ignore: [{IGNORED}] # {100 * row[1] / whole:.2g} % of the pixels" for row in ignored]
    return "\n".join(lines) + "\n"


def unnamed(class_names: Sequence[str]) -> str | None:
    """Say that all classes are called as `class_list_of` has proposed; None if one has a name of its own."""
    if not all(PROPOSED.fullmatch(name) for name in class_names):
        return None
    return (
        f"the classes are called '{class_names[0]}' to '{class_names[-1]}', as prepare has proposed; put their names "
        "into data.classes, and values that stand for nothing into its 'ignore', else they are learnt as a class"
    )
