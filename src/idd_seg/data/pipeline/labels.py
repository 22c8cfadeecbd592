"""From what label files hold to class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import ConfigError, DataError

# Options that runs of before do not have, with the values that stand for what these did.
NEUTRAL = {"label_suffix": "auto", "image_suffix": "auto", "labelled_share": 1.0, "also_train": None, "val_share": 0.2}
NEUTRAL |= {"channels": 3, "bits": 8}
UNLABELLED = ("unlabelled", "unlabelled_share")
SHOWN = 8  # colours that are named at once


class ToClasses(Protocol):
    """Maps a label as it was read to class ids (H, W) uint8, or raises a DataError that names the sample."""

    colours: bool  # whether labels are read as (H, W, 3) colours, or as (H, W) values
    remedy: str  # what to do about a value that is of no class

    def __call__(self, label: UInt8, name: str) -> UInt8: ...


class LabelMap:
    """From 8-bit values to class ids.

    Args:
        num_classes: K; values 0..K-1 are classes as they are, unless `mapping` says otherwise.
        mapping: value in the file -> class id.
        ignored: values in the file that take no part.
        ignore_index: what they become, 0 to 255.
        reduce_zero_label: value 0 takes no part, and v is the class v - 1; instead of `mapping`.

    Raises:
        ConfigError: for values or classes out of range, or both ways at once.
    """

    colours = False
    remedy = "data.num_classes, data.label_values and data.ignored say what values stand for"

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        ignored: Sequence[int] = (),
        mapping: Mapping[int, int] | None = None,
        reduce_zero_label: bool = False,
    ) -> None:
        if reduce_zero_label:
            if mapping is not None:
                raise ConfigError(
                    "data.reduce_zero_label=true and data.label_values both say what the values stand for; take one: "
                    "data.reduce_zero_label=false, or data.label_values=null"
                )
            mapping, ignored = _reduced(num_classes, ignored)
        pairs = {i: i for i in range(num_classes)} if mapping is None else dict(mapping)
        if num_classes > 254 or not 0 <= ignore_index <= 255:
            raise ConfigError(
                f"labels are 8-bit values: data.num_classes is at most 254 and data.ignore_index 0 to 255, "
                f"got {num_classes} and {ignore_index}"
            )
        for value, class_id in pairs.items():
            if not (0 <= int(value) <= 255 and 0 <= class_id < num_classes):
                raise ConfigError(
                    f"data.label_values maps {value} to {class_id}; values are 0 to 255, classes 0 to {num_classes - 1}"
                )
        if mapping is not None and (both := sorted({int(value) for value in pairs} & set(ignored))):
            option = "reduce_zero_label" if reduce_zero_label else "label_values"
            raise ConfigError(f"the value {both[0]} is a class by data.{option}, and ignored by data.ignored")
        # What a mapping names is a class, also where its value is that of the ignore index.
        implied = set() if mapping is not None and ignore_index in pairs else {ignore_index}
        self.named = frozenset(ignored)
        self.ignored = sorted({*ignored} | implied)
        if outside := [v for v in self.ignored if not 0 <= v <= 255]:
            raise ConfigError(f"data.ignored holds {outside[0]}; values are 0 to 255")
        self.known = sorted({int(value) for value in pairs})
        # An id that is no class marks the values that stand for nothing.
        self.stray = next(i for i in range(256) if i >= num_classes and i != ignore_index)
        self.table: UInt8 = np.full(256, self.stray, np.uint8)
        for value, class_id in pairs.items():
            self.table[int(value)] = class_id
        self.table[self.ignored] = ignore_index

    def asked(self, value: int) -> bool:
        """Tell whether a value is ignored because `ignored` names it, and not only by being the ignore index."""
        return value in self.named

    def __call__(self, label: UInt8, name: str) -> UInt8:
        """Map (H, W) values to class ids.

        Raises:
            DataError: that names the sample and its values that are no class.
        """
        classes: UInt8 = cv2.LUT(label, self.table)
        if (stray := classes == self.stray).any():
            values = np.unique(label[stray]).tolist()
            raise DataError(
                f"{name}: its label has the value{'s' if len(values) > 1 else ''} {_ranges(values)}; the data set has "
                f"the classes {_ranges(self.known)} and ignores {_ranges(self.ignored) or 'nothing'}; {self.remedy}"
            )
        return classes


def with_table(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data set's options with `reduce_zero_label` written as the `label_values` and `ignored` it stands for.

    So runs, kept teachers and cached outputs from before that option hold them; what compares options compares these.
    """
    plain = {key: value for key, value in options.items() if key != "reduce_zero_label"}
    # What is new is left out where it changes nothing.
    plain = {key: value for key, value in plain.items() if not (key in NEUTRAL and NEUTRAL[key] == value)}
    if plain.get("unlabelled") is None or not plain.get("unlabelled_share", 1):
        plain = {key: value for key, value in plain.items() if key not in UNLABELLED}
        if (plain.get("teacher_labels") or {}).get("use") != "all":
            plain.pop("teacher_labels", None)
    if options.get("reduce_zero_label"):
        plain["label_values"], plain["ignored"] = _reduced(plain["num_classes"], plain.get("ignored") or ())
    return plain


def _reduced(num_classes: int, ignored: Sequence[int]) -> tuple[dict[int, int], list[int]]:
    return {class_id + 1: class_id for class_id in range(num_classes)}, sorted({0, *ignored})


class ColourMap:
    """From RGB colours to class ids.

    Args:
        colours: K colours, of class 0 to K-1.
        ignored: colours that take no part.
        ignore_index: what they become.

    Raises:
        ConfigError: if two classes share a colour.
    """

    colours = True
    remedy = "add it to the class list, or to the colours that are ignored"

    def __init__(
        self, colours: Sequence[Sequence[int]], ignore_index: int, ignored: Sequence[Sequence[int]] = ()
    ) -> None:
        if len(colours) > 254 or not 0 <= ignore_index <= 255:
            raise ConfigError(
                f"data.num_classes is at most 254 and data.ignore_index 0 to 255, got {len(colours)} and {ignore_index}"
            )
        known = [tuple(colour) for colour in [*colours, *ignored]]
        if odd := [c for c in known if len(c) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in c)]:
            raise ConfigError(f"a colour is three whole numbers, 0 to 255, got {list(odd[0])}")
        if len(set(known)) < len(known):
            twice = next(colour for colour in known if known.count(colour) > 1)
            raise ConfigError(
                f"data.palette: the colour {list(twice)} stands for two classes; masks can't tell them apart"
            )
        packed = np.array([_pack(np.array(colour, np.uint8)) for colour in known], np.int32)
        ids = np.array([*range(len(colours)), *[ignore_index] * len(ignored)], np.uint8)
        order = packed.argsort()
        self.packed, self.ids = packed[order], ids[order]

    def __call__(self, label: UInt8, name: str) -> UInt8:
        """Map (H, W, 3) colours to class ids.

        Raises:
            DataError: that names the sample and its first colours that are no class.
        """
        packed = _pack(label)
        place = np.searchsorted(self.packed, packed).clip(max=len(self.packed) - 1)
        stray = self.packed[place] != packed
        if stray.any():
            found = np.unique(label[stray], axis=0).tolist()
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise DataError(
                f"{name}: its label has the colour{'s' if len(found) > 1 else ''} "
                f"{', '.join(map(str, found[:SHOWN]))}{more}, which {'are' if len(found) > 1 else 'is'} of no class; "
                f"{self.remedy}"
            )
        classes: UInt8 = self.ids[place]
        return classes


def _pack(colours: UInt8) -> NDArray[np.int32]:
    """(..., 3) colours -> one number each."""
    wide = colours.astype(np.int32)
    packed: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def _ranges(values: Sequence[int]) -> str:
    """Write [0, 1, 2, 5] as `0 to 2, 5`."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)
