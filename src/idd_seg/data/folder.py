"""`data=folder`: photographs and masks of your own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from idd_seg.data.folder_layout import default_image, default_mask, why_nothing, with_layout
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.files import Pair, PairSource, find_file, require_files, require_folder, walk
from idd_seg.data.pipeline.list_file import LIST_SUFFIXES, read_pairs
from idd_seg.data.pipeline.pairing import AUTO, Suffixes, fixed, matches, pair
from idd_seg.data.pipeline.picture_file import IMAGE_SUFFIXES
from idd_seg.data.pipeline.split import held_out
from idd_seg.errors import ConfigError, DataError, MissingDataError


class Folder(SegmentationDataModule):
    """Photographs and masks found by patterns, or named by list files.

    Args:
        root: what patterns and list files are relative to.
        images: split -> a pattern such as `images/train/**/*.jpg` (`**` stands for any number of folders), or a list
            file (.txt, .lst, .csv, .tsv) with a photograph in each line, by option followed by its mask.
        labels: split -> a pattern with as many masks, paired by their names without ending (or, where these are not
            unique, by their paths below the fixed part of the pattern); not needed for `predict`, nor for list files
            that name the masks. A mask that a pattern finds is no photograph.
        label_suffix: what a mask's name has in addition to its photograph's, such as `_mask`; `auto` takes the same
            name, or else the only suffix that fits all.
        image_suffix: what a photograph's name has that its mask's has not, such as `_leftImg8bit`; `auto` likewise.
        val_share: share of the training photographs that make the split `val` where `images` has none for it; whole
            sequences, where names show such (see `held_out`). None makes none.
        also_train: list files of more training photographs, each with its mask, behind those of `images`: as
            `python -m idd_seg.label` writes them, perhaps.
        classes: the class list that names, colours and values were read from; for messages.
        common: see `SegmentationDataModule`; `masks` says how masks are read.

    Raises:
        ConfigError: for an unknown split, a split without masks, or `also_train` that is no list of list files.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test", "predict")

    def __init__(
        self,
        root: str,
        images: Mapping[str, str | None],
        labels: Mapping[str, str | None],
        label_suffix: str = AUTO,
        image_suffix: str = AUTO,
        also_train: Sequence[str] | None = None,
        val_share: float | None = None,
        classes: str | None = None,
        **common: Any,
    ) -> None:
        try:
            super().__init__(**common)
        except ConfigError as error:
            if classes is None or "data.palette" not in str(error):
                raise
            raise ConfigError(f"{error}; the colours stand in '{classes}'") from error
        self.root = Path(root).expanduser()
        self.classes, self.suffixes = classes, Suffixes(image_suffix, label_suffix)
        if classes is not None:
            self.labels.remedy = f"add it to the class list '{classes}': as a class's value or colour, or to 'ignore'"
        self.images, self.label_patterns, said = with_layout(self.root, images, labels)
        # Patterns that come from no option: the defaults, and what was found in their place.
        self.usual = {default_image("train"), default_mask("train")}
        if said is not None:
            self.usual |= {str(self.images["train"]), str(self.label_patterns["train"])}
            self.say(f"data=folder: {said}")
        if val_share is not None and not 0 < val_share < 1:
            raise ConfigError(f"data.val_share must be a number above 0 and below 1, or null, got {val_share}")
        self.val_share = val_share
        self.also_train = list(also_train or ())
        for name in self.also_train:
            if not str(name).lower().endswith(LIST_SUFFIXES):
                raise ConfigError(
                    f"data.also_train={name}: give list files ({', '.join(LIST_SUFFIXES)}) of photographs and masks, "
                    "as python -m idd_seg.label writes them"
                )
        for key in [*images, *labels]:
            if key not in self.splits:
                raise ConfigError(f"data.images and data.labels have the splits {', '.join(self.splits)}, not '{key}'")

    def make_source(self, split: str) -> PairSource:
        require_folder(self.root, "photographs and masks")
        if split in ("train", "val") and self.val_share is not None and not self.images.get("val"):
            return PairSource(require_files(self._split(split, self.val_share)), self.masks)
        return PairSource(require_files(self._pairs(split)), self.masks)

    def _split(self, split: str, share: float) -> list[Pair]:
        """Return the training photographs, or those of them that make `val`."""
        pairs = self._of_patterns("train")
        places = set(held_out([str(pair.image) for pair in pairs], share))
        if not places or len(places) == len(pairs):
            raise DataError(
                f"data.val_share={share:g} of {len(pairs)} photographs are {len(places)}; name those to judge on by "
                "data.images.val and data.labels.val"
            )
        self.say(
            f"data=folder: {len(places)} of {len(pairs)} photographs are held out to judge on "
            f"(data.val_share={share:g})"
        )
        found = [pair for place, pair in enumerate(pairs) if (place in places) == (split == "val")]
        return [*found, *self._added()] if split == "train" else found

    def _pairs(self, split: str) -> list[Pair]:
        pairs = self._of_patterns(split)
        return [*pairs, *self._added()] if split == "train" else pairs

    def _added(self) -> list[Pair]:
        return [pair for name in self.also_train for pair in self._more(name)]

    def _of_patterns(self, split: str) -> list[Pair]:
        pattern = self.images.get(split)
        if not pattern:
            raise MissingDataError(f"data=folder has no photographs for the split '{split}'; set data.images.{split}")
        listed = pattern.lower().endswith(LIST_SUFFIXES)
        pairs = self._listed(pattern, split) if listed else self._found(pattern, split)
        if split != "predict" and any(pair.label is None for pair in pairs):
            raise DataError(f"data=folder has no masks for the split '{split}'; set data.labels.{split}")
        return pairs

    def _more(self, name: str) -> list[Pair]:
        lines = read_pairs(find_file(self.root, name) or self.root / name, self.root, self.masks)
        if lines[0].label is None:
            raise DataError(f"{lines[0].where}: data.also_train needs a mask behind each photograph")
        return [Pair(line.image, line.label) for line in lines]

    def _listed(self, name: str, split: str) -> list[Pair]:
        path = find_file(self.root, name) or self.root / name
        lines = read_pairs(path, self.root, self.masks, labelled=split != "predict")
        if split == "predict":
            return [Pair(line.image, None) for line in lines]
        if lines[0].label is None:
            pattern = self.label_patterns.get(split)
            masks = self._glob(pattern, f"data.labels.{split}") if pattern else []
            return self._with_masks([line.image for line in lines], self.root, masks, split)
        first: dict[Path, Path] = {}
        for line in lines:
            assert line.label is not None
            if first.setdefault(line.label, line.image) != line.image:
                warnings.warn(
                    f"{line.where}: '{line.image}' has the same mask as '{first[line.label]}', '{line.label}'; is that "
                    "meant?",
                    stacklevel=2,
                )
                break
        return [Pair(line.image, line.label) for line in lines]

    def _found(self, pattern: str, split: str) -> list[Pair]:
        key = f"data.images.{split}"
        found = self._glob(pattern, key)
        masks = [self._masks(labels) for name, labels in self.label_patterns.items() if labels and name != split]
        label_pattern = self.label_patterns.get(split) if split != "predict" else None
        own = self._glob(label_pattern, f"data.labels.{split}") if label_pattern else []
        other = {os.path.realpath(path) for paths in masks for path in paths}
        # A photograph that is found by several links counts once.
        images = {os.path.realpath(path): path for path in reversed(found)}
        if rest := {real: path for real, path in images.items() if real not in other}:
            images = rest
        own_real = {os.path.realpath(path) for path in own}
        photographs = [path for real, path in images.items() if real not in own_real]
        if not photographs:
            # The pattern of the masks finds the photographs too: those that no photograph's pattern finds are masks.
            photographs = list(images.values())
            own = [path for path in own if os.path.realpath(path) not in images]
            if not own:
                raise DataError(
                    f"{key}={pattern} and data.labels.{split}={label_pattern} find the same "
                    f"{len(photographs)} files, so that it is not known which are masks; give each its own folder or "
                    f"ending, as in {key}='{fixed(pattern) / '*.jpg'}' data.labels.{split}='{fixed(pattern) / '*.png'}'"
                )
        self._tell_left_out(pattern, key, found, {*images, *own_real, *other})
        return self._with_masks(sorted(photographs), self.root / fixed(pattern), own, split)

    def _tell_left_out(self, pattern: str, key: str, found: list[Path], used: set[str]) -> None:
        """Say which pictures lie beside the photographs, and have an ending that the pattern does not."""
        folders, ending = {path.parent for path in found}, Path(pattern).suffix
        if not ending:
            return
        beside = [
            path for path in walk(self._base(pattern)) if path.parent in folders and path.suffix.lower() != ending
        ]
        left = [path for path in beside if os.path.realpath(path) not in used]
        if left:
            self.say(
                f"{key}={pattern} leaves out {len(left)} picture{'s' if len(left) > 1 else ''} of other endings in the "
                f"same folders: {', '.join(str(path) for path in left[:3])}"
            )

    def _masks(self, pattern: str) -> list[Path]:
        try:
            return self._glob(pattern, "data.labels")
        except DataError:
            return []

    def _with_masks(self, images: list[Path], base: Path, masks: list[Path], split: str) -> list[Pair]:
        pattern = self.label_patterns.get(split)
        if not pattern or split == "predict":
            return [Pair(image, None) for image in images]
        below = self._base(pattern)
        base = find_file(self.root, str(base.relative_to(self.root))) or base
        found, found_suffixes = pair(
            {path: path.relative_to(base) for path in images},
            {path: path.relative_to(below) for path in masks},
            self.suffixes,
            f"data.labels.{split}={pattern}",
        )
        self._tell_suffixes(found_suffixes)
        return [Pair(image, mask) for image, mask in zip(images, found, strict=True)]

    def _tell_suffixes(self, found: Suffixes) -> None:
        label, image = (
            f"data.{kind}_suffix={suffix}" if suffix else f"data.{kind}_suffix=''"
            for kind, suffix in (("label", found.label), ("image", found.image))
        )
        if found.image and self.suffixes.image == AUTO:
            self.say(
                f"data=folder: a mask is called as its photograph, with '{found.label}' in place of '{found.image}' "
                f"({image} {label})"
            )
        elif found.label and self.suffixes.label == AUTO:
            self.say(f"data=folder: a mask is called as its photograph, with '{found.label}' ({label})")

    def _base(self, pattern: str) -> Path:
        return find_file(self.root, str(fixed(pattern))) or self.root / fixed(pattern)

    def _glob(self, pattern: str, key: str) -> list[Path]:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise DataError(f"{key}={pattern} leads out of data.root; patterns are relative to it")
        base = self._base(pattern)
        rest = Path(pattern).parts[len(fixed(pattern).parts) :]
        found = [path for path in walk(base) if matches(path.relative_to(base).parts, rest)] if base.is_dir() else []
        if not found:
            # A pattern that nobody has given: what is wrong is where things lie.
            remedy = why_nothing(self.root, base) if pattern in self.usual else ""
            raise DataError(f"{key}={pattern} finds no {', '.join(IMAGE_SUFFIXES)} files in '{self.root}'{remedy}")
        return found
