"""Finding the files of a data set and pairing photographs with label maps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from idd_seg.data.pipeline.decode import IMAGE_SUFFIXES, read_image, read_label
from idd_seg.data.pipeline.source import Files, Item
from idd_seg.errors import DataError, MissingDataError


class Pair(NamedTuple):
    """The files of a photograph and its label map, None where there is none."""

    image: Path
    label: Path | None


class PairSource:
    """Items read from pairs of files, checked while they are read.

    Args:
        masks: how label files are read; see `read_label`.
    """

    def __init__(self, pairs: Sequence[Pair], masks: str = "indices") -> None:
        self.pairs, self.masks = list(pairs), masks

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        pair = self.pairs[index]
        image = read_image(pair.image)
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

    def name(self, index: int) -> str:
        return str(self.pairs[index].image)

    def files(self, index: int) -> Files:
        """Return the files of a photograph and its label."""
        return self.pairs[index]

    def key(self, index: int) -> str:
        """Return paths, sizes and times of the files: a file that was changed is read anew."""
        parts = [self.masks]
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
    """Return the files with one of the endings below a folder, in the order of names.

    Links are followed, but not into a folder that they lie in.
    """
    return sorted(path for path in _files(folder, frozenset()) if path.suffix.lower() in suffixes)


def _files(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        state = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"the folder '{folder}' can't be read ({error.strerror})") from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for entry in entries:
        if _is(entry.is_dir):
            yield from _files(Path(entry.path), above | {here})
        elif _is(entry.is_file) or entry.is_symlink():  # a link to nowhere is missed later, by name
            yield Path(entry.path)


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
    pairs = [Pair(path, labels / path.relative_to(images).with_suffix(".png")) for path in found]
    twice = [label for label, number in Counter(pair.label for pair in pairs).items() if number > 1]
    if twice and twice[0] is not None:
        raise DataError(f"'{images}' holds '{twice[0].stem}' in two formats, for one label; remove one of them")
    return require_files(pairs)


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
    """Read the non-empty lines of a list file; see `read_table`."""
    return [line for (line,) in read_table(path, lambda line: [line])]


def read_table(path: Path, columns: Callable[[str], list[str]]) -> list[list[str]]:
    """Read the non-empty lines of a list file, each split by `columns` into the names of files.

    Raises:
        DataError: if it is missing, not text, empty, names a file outside the data set, or begins two lines alike.
    """
    try:
        lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
    except FileNotFoundError as error:
        raise MissingDataError(
            f"there is no list file '{path}'; set data.root=PATH to where the data set lies"
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: the list file can't be read ({error})") from error
    rows = {number: columns(line.strip()) for number, line in lines if line.strip()}
    if not rows:
        raise DataError(f"{path}: the list file is empty")
    first: dict[str, int] = {}
    for number, names in rows.items():
        for name in names:
            if name.startswith(("/", "\\")) or ".." in Path(name).parts or "\0" in name:
                raise DataError(f"{path}, line {number}: '{name}' leads out of the data set")
        if names[0] in first:
            before = first[names[0]]
            raise DataError(f"{path}, line {number}: '{names[0]}' stands in line {before} already; remove one of them")
        first[names[0]] = number
    return list(rows.values())
