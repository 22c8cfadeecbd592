"""`data=folder`: photographs and masks of your own."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.decode import IMAGE_SUFFIXES
from idd_seg.data.pipeline.files import Pair, PairSource, read_table, require_files, require_folder, walk
from idd_seg.errors import ConfigError, DataError, MissingDataError

LIST_SUFFIXES = (".txt", ".lst")


class Folder(SegmentationDataModule):
    """Photographs and masks found by patterns, or named by list files.

    Args:
        root: what patterns and list files are relative to.
        images: split -> a pattern such as `images/train/**/*.jpg` (`**` stands for any number of folders), or a list
            file (.txt, .lst) with a photograph in each line, by option followed by its mask (separated by a tab, or by
            a comma or space where that leaves two names).
        labels: split -> a pattern with as many masks, paired by their names without ending (or, where these are not
            unique, by their paths below the fixed part of the pattern); not needed for `predict`, nor for list files
            that name the masks.
        classes: the class list that names, colours and values were read from; for messages.
        common: see `SegmentationDataModule`; `masks` says how masks are read.

    Raises:
        ConfigError: for an unknown split, or a split without masks.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")

    def __init__(
        self,
        root: str,
        images: Mapping[str, str | None],
        labels: Mapping[str, str | None],
        classes: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()
        self.classes = classes
        self.images, self.label_patterns = dict(images), dict(labels)
        for key in [*images, *labels]:
            if key not in self.splits:
                raise ConfigError(f"data.images and data.labels have the splits {', '.join(self.splits)}, not '{key}'")

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "photographs and masks")
        pattern = self.images.get(split)
        if not pattern:
            raise MissingDataError(f"data=folder has no photographs for the split '{split}'; set data.images.{split}")
        pairs = self._listed(pattern, split) if pattern.endswith(LIST_SUFFIXES) else self._found(pattern, split)
        if split != "predict" and any(pair.label is None for pair in pairs):
            raise DataError(f"data=folder has no masks for the split '{split}'; set data.labels.{split}")
        return PairSource(require_files(pairs), self.masks)

    def _listed(self, name: str, split: str) -> list[Pair]:
        lines = read_table(self.root / name, _words)
        if all(len(words) == 2 for words in lines):
            predict = split == "predict"
            return [Pair(self.root / image, None if predict else self.root / label) for image, label in lines]
        if any(len(words) == 2 for words in lines):
            raise DataError(f"{self.root / name}: some lines name a photograph and a mask, others only one file")
        return self._with_masks([self.root / words[0] for words in lines], self.root, split)

    def _found(self, pattern: str, split: str) -> list[Pair]:
        found = self._glob(pattern, f"data.images.{split}")
        # A photograph that is found by several links counts once.
        images = sorted({os.path.realpath(path): path for path in reversed(found)}.values())
        return self._with_masks(images, self.root / _fixed(pattern), split)

    def _with_masks(self, images: list[Path], base: Path, split: str) -> list[Pair]:
        pattern = self.label_patterns.get(split)
        if not pattern or split == "predict":
            return [Pair(image, None) for image in images]
        found = self._glob(pattern, f"data.labels.{split}")
        try:
            by_name = _index(found, lambda path: path.stem)
            names = [path.stem for path in images]
            if len(set(names)) < len(names):
                raise DataError("photographs in different folders have the same name")
        except DataError:
            by_name = _index(found, lambda path: str(path.relative_to(self.root / _fixed(pattern)).with_suffix("")))
            names = [str(path.relative_to(base).with_suffix("")) for path in images]
        missing = [str(path) for path, name in zip(images, names, strict=True) if name not in by_name]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(images)} photographs have no mask of the same name in data.labels.{split}="
                f"{pattern}: {', '.join(missing[:3])}"
            )
        return [Pair(path, by_name[name]) for path, name in zip(images, names, strict=True)]

    def _glob(self, pattern: str, key: str) -> list[Path]:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise DataError(f"{key}={pattern} leads out of data.root; patterns are relative to it")
        base = self.root / _fixed(pattern)
        rest = Path(pattern).parts[len(_fixed(pattern).parts) :]
        found = [path for path in walk(base) if _matches(path.relative_to(base).parts, rest)] if base.is_dir() else []
        if not found:
            raise DataError(f"{key}={pattern} finds no {', '.join(IMAGE_SUFFIXES)} files in '{self.root}'")
        return found


def _index(paths: Sequence[Path], name_of: Any) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in by_name:
            raise DataError(f"two masks are called '{name}': '{by_name[name]}' and '{path}'; remove one of them")
        by_name[name] = path
    return by_name


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether folders and file name follow a pattern whose `**` stands for any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _fixed(pattern: str) -> Path:
    """Return the folders of a pattern before its first wildcard."""
    parts = Path(pattern).parts[:-1]
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def _words(line: str) -> list[str]:
    """Split a line into a photograph and a mask, if it names both; spaces may belong to a single name."""
    for separator in ("\t", ",", " "):
        words = [word.strip() for word in line.split(separator) if word.strip()]
        if len(words) == 2 and all(word.lower().endswith(IMAGE_SUFFIXES) for word in words):
            return words
    return [line]
