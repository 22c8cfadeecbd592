"""What the labels of a split can teach: said where it is nothing, or only one class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from idd_seg.data.pipeline.files import PairSource
from idd_seg.data.pipeline.labels import LabelMap
from idd_seg.data.pipeline.source import UInt8, innermost, label_of, spread
from idd_seg.errors import DataError

if TYPE_CHECKING:
    from idd_seg.data.pipeline.datamodule import SegmentationDataModule

SAMPLE = 64  # label maps that are looked at before a training
NAMED = 5


class Finding(NamedTuple):
    """What is to be known of a split's labels.

    Attributes:
        fatal: a training or score would be of no use.
    """

    text: str
    fatal: bool


@dataclass
class LabelCounts:
    """Pixels of label maps.

    Attributes:
        classes: of class 0 to K - 1, and of what takes no part in the last place.
        values: of each value in the files; of colours nothing.
        images: how many label maps.
    """

    classes: NDArray[np.int64]
    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    images: int = 0

    def add(self, label: UInt8, classes: UInt8, ignore_index: int) -> NDArray[np.int64]:
        """Count a label as it was read, and its class ids; return the pixels of each class of this one."""
        counts = np.bincount(classes.ravel(), minlength=256)
        ignored = counts[ignore_index]
        counts[ignore_index] = 0  # also where it is the id of a class
        found = np.append(counts[: len(self.classes) - 1], ignored)
        self.classes += found
        if label.ndim == 2:
            self.values += np.bincount(label.ravel(), minlength=256)
        self.images += 1
        return found


def findings(data: SegmentationDataModule, split: str, counts: LabelCounts, items: int) -> list[Finding]:
    """Say what is wrong with a split whose labels have been counted, all of them or a sample."""
    if not counts.images or not counts.classes.sum():
        return []
    labelled = counts.classes[:-1]
    whole = counts.images >= items
    share = "all" if whole else f"a sample of {counts.images} of {items}"
    begin = f"data={data.name}, split '{split}' (by {share} label maps)"
    values = np.flatnonzero(counts.values).tolist()
    if _is_black_and_white(data, values):
        known = f"'{data.class_names[0]}' and '{data.class_names[1]}'"
        return [
            Finding(
                f"{begin}: the masks hold the values 0 and 255 alone, and 255 takes no part, so that one of "
                f"{known} is never seen. {remedy_of_255(data)}",
                True,
            )
        ]
    if not labelled.any():
        held = f" The files hold {_values(values)}." if values else ""
        result = "nothing can be learnt" if split == "train" else "the mIoU would be no number"
        return [
            Finding(
                f"{begin}: every pixel takes no part, so that {result}.{held} {_advice(data)}",
                split == "train" and whole,
            )
        ]
    missing = [name for name, number in zip(data.class_names, labelled, strict=True) if not number]
    if len(missing) == data.num_classes - 1:
        only = data.class_names[int(labelled.argmax())]
        held = f" The files hold {_values(values)}." if values else ""
        return [Finding(f"{begin}: every labelled pixel is '{only}'.{held} {_advice(data)}", False)]
    # A class that is rare may be missing in a sample.
    if missing and split == "train" and (whole or data.num_classes <= counts.images // 2):
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = ", ".join(f"'{name}'" for name in missing[:NAMED])
        look = "" if whole else "; python -m idd_seg.prepare looks at all of them"
        plural = "these classes do" if len(missing) > 1 else "this class does"
        return [Finding(f"{begin}: {plural} not occur: {names}{more}{look}. {_advice(data)}", False)]
    return []


def _is_black_and_white(data: SegmentationDataModule, values: Sequence[int]) -> bool:
    """Tell whether the masks of two classes hold 0 and 255 alone, of which 255 is ignored without anybody's word."""
    labels = data.labels
    if not isinstance(labels, LabelMap) or data.num_classes != 2 or list(values) != [0, 255]:
        return False
    return 255 in labels.ignored and not labels.asked(255)


def remedy_of_255(data: SegmentationDataModule) -> str:
    """Return how 255 becomes a class."""
    if classes := getattr(data, "classes", None):
        name = data.class_names[1]
        return (
            f"Say in '{classes}' what they stand for, as in '- {{name: {name}, value: 255}}', or take "
            "'data.label_values={0: 0, 255: 1}'. If 255 is to be ignored, say so there: 'ignore: [255]'"
        )
    return "Take 'data.label_values={0: 0, 255: 1}'; if 255 is to be ignored, 'data.ignored=[255]'"


def _advice(data: SegmentationDataModule) -> str:
    if data.masks != "indices":
        return "Compare the colours of the masks with those of the class list (data.palette, data.ignored_colours)"
    classes = getattr(data, "classes", None)
    place = f"the values in '{classes}'" if classes else "data.label_values={VALUE: CLASS, ...}"
    return f"If that is not meant, {place}, data.ignored and data.ignore_index say what the values stand for"


def _values(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:NAMED])
    return f"the value{'s' if len(values) > 1 else ''} {shown}" + (" and others" if len(values) > NAMED else "")


def sample(data: SegmentationDataModule, split: str, most: int = SAMPLE) -> list[Finding]:
    """Look at label maps spread over a split that lies in files; of one that is generated nothing is said."""
    source = data.dataset(split).source
    if not isinstance(innermost(source), PairSource):
        return []
    counts = LabelCounts(np.zeros(data.num_classes + 1, np.int64))
    for index in spread(len(source), most):
        try:
            label = label_of(source, index)
            if label is not None:
                counts.add(label, data.labels(label, source.name(index)), data.ignore_index)
        except DataError:
            continue  # whoever trains on it says so
    return findings(data, split, counts, len(source))


def in_both(data: SegmentationDataModule, first: str = "train", second: str = "val") -> str | None:
    """Say which photographs are in two splits; None if none is."""
    if data.held_out is not None or any(split not in data.datasets for split in (first, second)):
        return None
    sources = [data.datasets[split].source for split in (first, second)]
    inner = [innermost(source) for source in sources]
    if not all(isinstance(source, PairSource) for source in inner):
        return None
    files = [{_identity(pair.image): str(pair.image) for pair in source.pairs} for source in inner]  # type: ignore[attr-defined]
    both = sorted(files[1][key] for key in files[0].keys() & files[1].keys())
    if not both:
        return None
    more = f" and {len(both) - NAMED} more" if len(both) > NAMED else ""
    return (
        f"data={data.name}: {len(both)} photograph{'s are' if len(both) > 1 else ' is'} in '{first}' and in "
        f"'{second}', so that scores are too high: {', '.join(both[:NAMED])}{more}"
    )


def _identity(path: object) -> tuple[int, int] | str:
    """Return what is equal for two names of one file."""
    try:
        state = os.stat(str(path))  # noqa: PTH116 - many of them
    except OSError:
        return str(path)
    return state.st_dev, state.st_ino
