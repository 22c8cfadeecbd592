"""Finding the files of a data set and pairing photographs with label maps."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from idd_seg.data.pipeline.decode import read_image
from idd_seg.data.pipeline.decode_label import read_label
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES, LABEL_SUFFIX
from idd_seg.data.pipeline.pixels import RGB, Pixels
from idd_seg.data.pipeline.source import Files, Item, UInt8
from idd_seg.errors import DataError, MissingDataError

# Folders that systems and programs put between a user's own.
FOREIGN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini"}


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is no user's picture: .ipynb_checkpoints, ._x.jpg, __MACOSX, Thumbs.db."""
    return name.startswith(".") or name in FOREIGN


def one_form(name: str) -> str:
    """Return a name in one form of Unicode: systems write the same letters in two."""
    return unicodedata.normalize("NFC", name)


def find_file(root: Path, name: str) -> Path | None:
    """Return what lies below a folder by a name, whatever form of Unicode it was written in; None if nothing does."""
    path = root / name
    try:
        if path.exists() or path.is_symlink():
            return path
    except (OSError, ValueError):
        return None
    if name.isascii():
        return None
    for part in Path(name).parts:
        try:
            root = next(found for found in root.iterdir() if one_form(found.name) == one_form(part))
        except (OSError, StopIteration):
            return None
    return root


class Pair(NamedTuple):
    """The files of a photograph and its label map, None where there is none."""

    image: Path
    label: Path | None


class PairSource:
    """Items read from pairs of files, checked while they are read.

    Args:
        masks: how label files are read; see `read_label`.
        pixels: what the photographs' pixels hold.
    """

    def __init__(self, pairs: Sequence[Pair], masks: str = "indices", pixels: Pixels = RGB) -> None:
        self.pairs, self.masks, self.pixels = list(pairs), masks, pixels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        pair = self.pairs[index]
        image = read_image(pair.image, pixels=self.pixels)
        if pair.label is None:
            return Item(image, None, str(pair.image))
        label = read_label(pair.label, self.masks)
        if image.shape[:2] != label.shape[:2]:
            turned = image.shape[:2] == label.shape[1::-1]
            raise DataError(
                f"{pair.label}: the label is {label.shape[1]} x {label.shape[0]} pixels, "
                f"its image {pair.image.name} is {image.shape[1]} x {image.shape[0]}"
                + ("; was it drawn on a picture that its EXIF tag turns? Turn the file itself" if turned else "")
            )
        return Item(image, label, str(pair.image))

    def label(self, index: int) -> UInt8 | None:
        """Return the label alone."""
        path = self.pairs[index].label
        return None if path is None else read_label(path, self.masks)

    def name(self, index: int) -> str:
        return str(self.pairs[index].image)

    def files(self, index: int) -> Files:
        """Return the files of a photograph and its label."""
        return self.pairs[index]

    def key(self, index: int) -> str:
        """Return paths, sizes and times of the files: a file that was changed is read anew."""
        parts = [self.masks] if self.pixels.photograph else [self.masks, str(self.pixels)]
        for path in self.pairs[index]:
            if path is not None:
                try:
                    state = path.stat()
                except OSError as error:
                    raise DataError(f"{path}: the file can't be read ({error.strerror})") from error
                parts.append(f"{path.absolute()}|{state.st_size}|{state.st_mtime_ns}")
        return "\n".join(parts)


def require_folder(path: Path, what: str) -> Path:
    """Return `path` if it is a folder.

    Raises:
        DataError: that names the folder, what it should hold, and the option that sets it.
    """
    if not path.is_dir():
        raise MissingDataError(
            f"there is no folder '{path}' ({what}); set data.root=PATH, or root=PATH in evaluate and "
            "compare, to where the data set lies"
        )
    return path


def walk(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files with one of the endings, in any case, below a folder, in the order of names.

    What `is_hidden` is left out.
    Links are followed, but not into a folder that they lie in.
    """
    return sorted(folder / name for name in walk_names(folder, suffixes))


def walk_names(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Iterator[str]:
    """Yield the paths of the same files, relative to the folder, in no order: of a million, objects are too many."""
    return (name for name in _names(str(folder), "", frozenset()) if name.lower().endswith(tuple(suffixes)))


def _names(folder: str, below: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    try:
        state = os.stat(folder)  # noqa: PTH116
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"the folder '{folder}' can't be read ({error.strerror})") from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if _is(entry.is_dir):
            yield from _names(entry.path, f"{below}{entry.name}/", above | {here})
        elif _is(entry.is_file) or entry.is_symlink():  # a link to nowhere is missed later, by name
            yield below + entry.name


def _is(kind: Callable[[], bool]) -> bool:
    """Ask a folder's entry what it is; a link that leads to itself is nothing."""
    try:
        return kind()
    except OSError:
        return False


def require_images(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, what: str = "images") -> list[Path]:
    """Return the pictures of a folder and the folders below it.

    Raises:
        DataError: if the folder is missing or holds none.
    """
    found = walk(require_folder(folder, what), suffixes)
    if not found:
        raise DataError(f"no {', '.join(suffixes)} files in '{folder}'")
    return found


def pair_by_name(images: Path, labels: Path) -> list[Pair]:
    """Pair the pictures of two folders by their paths without ending, in the order of names.

    Raises:
        DataError: if a folder is missing or has no picture, or an image has no label.
    """
    found = require_images(images)
    require_folder(labels, "label maps")
    return pair_each(found, images, labels)


def pair_each(found: Sequence[Path], images: Path, labels: Path) -> list[Pair]:
    """Pair pictures below `images` with the PNG files of the same relative path below `labels`.

    Raises:
        DataError: if an image has no label, or two images have the same one.
    """
    by_name = {_key(path, labels): path for path in reversed(walk(labels, (LABEL_SUFFIX,)))}
    pairs = [
        Pair(path, by_name.get(_key(path, images), labels / path.relative_to(images).with_suffix(LABEL_SUFFIX)))
        for path in found
    ]
    twice = [label for label, number in Counter(pair.label for pair in pairs).items() if number > 1]
    if twice and twice[0] is not None:
        raise DataError(f"'{images}' holds '{twice[0].stem}' in two formats, for one label; remove one of them")
    return require_files(pairs)


def _key(path: Path, base: Path) -> str:
    """Return what photographs and labels are paired by: the path below a folder, without ending."""
    return one_form(str(path.relative_to(base).with_suffix("")))


def require_files(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs if every file is there.

    Raises:
        DataError: that counts and names the first missing files.
    """
    for what, paths in (
        ("image", [pair.image for pair in pairs]),
        ("label", [pair.label for pair in pairs if pair.label is not None]),
    ):
        missing = [path for path in paths if not path.is_file()]
        if missing:
            names = ", ".join(str(path) for path in missing[:3])
            raise DataError(f"{len(missing)} of {len(pairs)} samples have no {what} file: {names}")
    return pairs


def read_list(path: Path) -> list[str]:
    """Read the names of a list file, a name in each line that is not empty.

    Raises:
        DataError: as `read_lines`; also if a name leads out of the data set, or stands there twice.
    """
    first: dict[str, int] = {}
    for number, name in read_lines(path):
        refuse_leading_out(name, f"{path}, line {number}")
        if name in first:
            raise DataError(f"{path}, line {number}: '{name}' stands in line {first[name]} already; remove one of them")
        first[name] = number
    return list(first)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Read the lines of a list file that are not empty, with their numbers; UTF-8, or UTF-16 with its mark.

    Raises:
        DataError: if it is missing, not text, or empty.
    """
    try:
        content = path.read_bytes()
        marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except FileNotFoundError as error:
        raise MissingDataError(
            f"there is no list file '{path}'; set data.root=PATH to where the data set lies"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: the list file can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the list file can't be read as text ({error}); save it as UTF-8") from error
    rows = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1) if line.strip()]
    if odd := [number for number, line in rows if "\0" in line]:
        raise DataError(f"{path}, line {odd[0]}: the list file holds bytes that are no text; save it as UTF-8")
    if not rows:
        raise DataError(f"{path}: the list file is empty")
    return rows


def refuse_leading_out(name: str, where: str) -> None:
    if name.startswith(("/", "\\")) or ".." in Path(name).parts or "\0" in name:
        raise DataError(f"{where}: '{name}' leads out of the data set")
