"""Photographs and label maps in files: pairing, reading, and saying what is wrong with one."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from idd_seg.data.source import Item, UInt8
from idd_seg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # no format that calls another program
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


class Pair(NamedTuple):
    """The files of a photograph and its label map."""

    image: Path
    label: Path


class PairSource:
    """Items read from pairs of files, checked while they are read."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        pair = self.pairs[index]
        image, label = read_image(pair.image), read_label(pair.label)
        if image.shape[:2] != label.shape:
            raise DataError(
                f"{pair.label}: the label is {label.shape[1]} x {label.shape[0]} pixels, "
                f"its image {pair.image.name} is {image.shape[1]} x {image.shape[0]}"
            )
        return Item(image, label, str(pair.image))


def _open(path: Path) -> Image.Image:
    """Decode a file completely, or raise a DataError that names it."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
            picture.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (*_UNREADABLE, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: the picture can't be read, it is damaged or truncated ({error})") from error
    return picture


def read_image(path: Path) -> UInt8:
    """Read a photograph as (H, W, 3) uint8 RGB.

    Raises:
        DataError: if the file is missing, empty, truncated, too large to be a photograph, or no picture.
    """
    picture = _open(path)
    if picture.mode.startswith(("I", "F")):
        raise DataError(f"{path}: the photograph is a '{picture.mode}' picture; 8 bits a channel are expected")
    return np.array(picture.convert("RGB"))


def read_label(path: Path) -> UInt8:
    """Read a label map as (H, W) uint8: grey values, or the indices of a palette picture.

    Raises:
        DataError: as `read_image`; also for a JPEG, a colour picture or more than 8 bits.
    """
    picture = _open(path)
    if picture.format == "JPEG":
        raise DataError(f"{path}: a label map stored as JPEG has lost its exact values; store it as PNG")
    if picture.mode == "1":
        picture = picture.convert("L")
        return np.asarray(picture) // 255
    if picture.mode not in ("L", "P"):
        raise DataError(
            f"{path}: the label map is a '{picture.mode}' picture; class ids are expected in 8 bits, grey or palette"
        )
    return np.asarray(picture)


def require_folder(path: Path, what: str) -> Path:
    """Return `path` if it is a folder.

    Raises:
        DataError: that names the folder, what it should hold, and the option that sets it.
    """
    if not path.is_dir():
        raise DataError(
            f"there is no folder '{path}' ({what}); set data.root=PATH, or root=PATH in evaluate and "
            "compare, to where the data set lies"
        )
    return path


def pair_by_name(images: Path, labels: Path) -> list[Pair]:
    """Pair the pictures of two folders by their names without ending, in the order of names.

    Raises:
        DataError: if a folder is missing or has no picture, or an image has no label.
    """
    found = sorted(p for p in require_folder(images, "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"no .png, .jpg or .jpeg files in '{images}'")
    require_folder(labels, "label maps")
    if twice := [stem for stem, number in Counter(path.stem for path in found).items() if number > 1]:
        raise DataError(f"'{images}' holds '{twice[0]}' in two formats, for one label; remove one of them")
    pairs = [Pair(path, labels / f"{path.stem}.png") for path in found]
    return require_labels(pairs)


def require_labels(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs if every file is there.

    Raises:
        DataError: that counts and names the first missing files.
    """
    for what, missing in (
        ("image", [pair.image for pair in pairs if not pair.image.is_file()]),
        ("label", [pair.label for pair in pairs if not pair.label.is_file()]),
    ):
        if missing:
            names = ", ".join(str(path) for path in missing[:3])
            raise DataError(f"{len(missing)} of {len(pairs)} samples have no {what} file: {names}")
    return pairs


def read_list(path: Path) -> list[str]:
    """Read the non-empty lines of a list file.

    Raises:
        DataError: if it is missing, not text, empty, or names a file outside the data set.
    """
    try:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        names = {number: line.strip() for number, line in lines if line.strip()}
    except FileNotFoundError as error:
        raise DataError(f"there is no list file '{path}'; set data.root=PATH to where the data set lies") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: the list file can't be read ({error})") from error
    if not names:
        raise DataError(f"{path}: the list file is empty")
    for number, name in names.items():
        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
            raise DataError(f"{path}, line {number}: '{name}' leads out of the data set")
    return list(names.values())
