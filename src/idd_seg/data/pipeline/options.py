"""What may be said of a data set, whatever its files: small groups of options, each with its own ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from idd_seg.data.augment import LARGEST_SCALE, Augmentation
from idd_seg.data.pipeline.labels import ColourMap, LabelMap, ToClasses
from idd_seg.data.pipeline.pixels import MOST_CHANNELS, Bits, Pixels
from idd_seg.errors import ConfigError

Masks = Literal["indices", "palette", "rgb"]
Cache = Literal["none", "ram", "disk"]
Use = Literal["unlabelled", "all", "none"]
MOST = 2**31 - 1  # of what is counted: products of two such numbers still fit into 64 bits
REST = "rest"  # data.unlabelled: the training pictures that data.labelled_share leaves out


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """The classes, and what a label file's values or colours stand for.

    Attributes:
        name: what the data set is called in tables and run folders.
        class_names, palette: K names, and K RGB colours, 0 to 255.
        ignore_index: the class id, none of 0 to K - 1, of pixels that take no part.
        masks: how label files are read: `indices` (grey values or a palette's indices), `palette` or `rgb` (colours).
        label_values: value in a label file -> class id; None takes the values as they are.
        reduce_zero_label: value 0 of index masks takes no part, and v is the class v - 1; instead of `label_values`.
        ignored: values in label files, beside `ignore_index`, that take no part.
        ignored_colours: colours in such label files that take no part.

    Raises:
        ConfigError: for names, colours and number of classes that do not go together, or a value out of range.
    """

    name: str
    num_classes: int
    class_names: Sequence[str]
    palette: Sequence[Sequence[int]]
    ignore_index: int = 255
    masks: Masks = "indices"
    label_values: Mapping[int, int] | None = None
    reduce_zero_label: bool = False
    ignored: Sequence[int] = ()
    ignored_colours: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        if not len(self.class_names) == len(self.palette) == self.num_classes:
            raise ConfigError(
                f"data={self.name}: num_classes is {self.num_classes}, but there are {len(self.class_names)} class "
                f"names and {len(self.palette)} colours"
            )
        if 0 <= self.ignore_index < self.num_classes:
            raise ConfigError(
                f"data.ignore_index={self.ignore_index} is the class '{self.class_names[self.ignore_index]}'; take a "
                "value that is no class (255). To leave classes out, name their values in data.ignored"
            )
        one_of("data.masks", self.masks, get_args(Masks))

    def to_classes(self) -> ToClasses:
        """Return what maps a label as it was read to class ids."""
        if self.masks == "indices":
            return LabelMap(
                self.num_classes, self.ignore_index, self.ignored, self.label_values, self.reduce_zero_label
            )
        if self.reduce_zero_label:
            raise ConfigError(f"data.reduce_zero_label=true is of data.masks=indices, and data.masks is '{self.masks}'")
        colours = [tuple(colour) for colour in self.palette]
        return ColourMap(colours, self.ignore_index, self.ignored_colours)


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How pictures come to the network.

    Attributes:
        channels, bits: of a picture's pixels, see `Pixels`. 3 and 8: photographs, whatever their files hold becomes RGB
            of 8 bits. Others are read as they are stored, and a file of another kind is refused.
        mean, std: of the normalised images, for each channel in its order (RGB), relative to 0 to 1: values are divided
            by 255, those of 16 bits by 65535.
        image_scale: size of the images that the network sees, relative to the files; labels are judged at full size.
        augment: of the training split; None shows it as it is.

    Raises:
        ConfigError: for a value out of range.
    """

    mean: Sequence[float]
    std: Sequence[float]
    channels: int = 3
    bits: Bits = 8
    image_scale: float = 1.0
    augment: Augmentation | None = None

    @property
    def pixels(self) -> Pixels:
        """Channels and bits together."""
        return Pixels(self.channels, self.bits)

    def __post_init__(self) -> None:
        at_least("data.channels", self.channels, 1, f"a whole number from 1 to {MOST_CHANNELS}", MOST_CHANNELS)
        one_of("data.bits", self.bits, get_args(Bits))
        if not 0 < self.image_scale <= LARGEST_SCALE:
            raise ConfigError(f"data.image_scale must be above 0, up to {LARGEST_SCALE}, got {self.image_scale}")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not len(self.mean) == len(self.std) == self.channels or not finite or min(self.std) <= 0:
            more = "" if self.channels == 3 else "; python -m idd_seg.prepare with the same options measures them"
            number = "three" if self.channels == 3 else f"{self.channels}"
            raise ConfigError(
                f"data.mean and data.std are {number} finite numbers each, std above 0; got {list(self.mean)} and "
                f"{list(self.std)}{more}"
            )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Which samples a training sees, and in what order: they depend on (seed, epoch, index) alone.

    Attributes:
        batch_size, eval_batch_size: images per process and step.
        seed: of the order and of the augmentation.
        held_out: the last of so many parts of the training split stands in for `val`, and is not trained on; None
            leaves both as they are.
        labelled_share: of the training pictures, spread evenly over them, whose labels are used; the others are left
            out, or shown without labels by `unlabelled=rest`.
        frozen_epochs: number of epochs after which the augmentation is repeated; None draws anew in each.

    Raises:
        ConfigError: for a value out of range.
    """

    batch_size: int = 16
    eval_batch_size: int = 1
    seed: int = 0
    held_out: int | None = None
    labelled_share: float = 1.0
    frozen_epochs: int | None = None

    def __post_init__(self) -> None:
        at_least("data.batch_size", self.batch_size, 1)
        at_least("data.eval_batch_size", self.eval_batch_size, 1)
        if self.held_out is not None:
            at_least("data.held_out", self.held_out, 2, "a number of parts >= 2 or null")
        share("data.labelled_share", self.labelled_share)
        if self.labelled_share == 0:
            raise ConfigError("data.labelled_share=0 leaves no picture with a label; give a number above 0, up to 1")
        if self.frozen_epochs is not None:
            at_least("data.frozen_epochs", self.frozen_epochs, 1, "a number of epochs >= 1 or null")


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How samples are loaded; none of these changes a sample.

    Attributes:
        num_workers: loader processes; 0 loads in the training process.
        timeout_s: seconds that loader processes may take for a sample, and all together for the next batch, before
            the run ends with the names of the files; None waits for ever, as a run without loader processes does.
        cache: `none`; `disk` keeps decoded pictures in `cache_dir`; `ram` in memory, for the length of the run.
        counts: number of items of each complete split, for `prepare`.

    Raises:
        ConfigError: for a value out of range.
    """

    num_workers: int = 0
    timeout_s: float | None = None
    cache: Cache = "none"
    cache_dir: str | None = None
    counts: Mapping[str, int] | None = field(default=None)

    def __post_init__(self) -> None:
        at_least("data.num_workers", self.num_workers, 0)
        if self.timeout_s is not None and (self.timeout_s is True or not 0 < self.timeout_s < 1e6):
            raise ConfigError(f"data.timeout_s must be a number of seconds > 0, or null, got '{self.timeout_s}'")
        one_of("data.cache", self.cache, get_args(Cache))
        if self.cache == "disk" and not self.cache_dir:
            raise ConfigError("data.cache=disk needs a folder: data.cache_dir=PATH")


@dataclass(frozen=True, kw_only=True)
class TeacherLabels:
    """Where the teacher's classes stand in for labels, in terms that read classes.

    Attributes:
        use: `unlabelled`, in pictures without labels; `all`, there and where the truth is ignored; `none`, nowhere.
        confidence: probability of the class from which on it is taken, 0 to 1; other pixels are ignored.

    Raises:
        ConfigError: for a value out of range.
    """

    use: Use = "unlabelled"
    confidence: float = 0.9

    def __post_init__(self) -> None:
        one_of("data.teacher_labels.use", self.use, get_args(Use))
        share("data.teacher_labels.confidence", self.confidence)


@dataclass(frozen=True, kw_only=True)
class UnlabelledOptions:
    """Photographs without labels beside the labelled ones, and the teacher's classes for them.

    Attributes:
        unlabelled: a folder, a pattern or a list file of photographs; see `find_unlabelled`. `rest`: the training
            pictures that `labelled_share` leaves out. None for none.
        unlabelled_share: how much of each batch they are; 0 leaves them out.
        teacher_labels: options of `TeacherLabels`.

    Raises:
        ConfigError: for a value out of range.
    """

    unlabelled: str | None = None
    unlabelled_share: float = 0.5
    teacher_labels: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        share("data.unlabelled_share", self.unlabelled_share)
        names = [known.name for known in fields(TeacherLabels)]
        for key in self.teacher_labels or {}:
            if key not in names:
                raise ConfigError(f"there is no option 'data.teacher_labels.{key}'; there are {', '.join(names)}")
        TeacherLabels(**self.teacher_labels or {})


@dataclass(frozen=True, kw_only=True)
class DataOptions(ClassOptions, PictureOptions, SamplingOptions, LoadingOptions, UnlabelledOptions):
    """All that data sets share: what a subclass of `SegmentationDataModule` hands to its base."""

    def __post_init__(self) -> None:
        for group in (ClassOptions, PictureOptions, SamplingOptions, LoadingOptions, UnlabelledOptions):
            group.__post_init__(self)
        if self.unlabelled == REST and self.labelled_share == 1:
            raise ConfigError(
                f"data.unlabelled={REST} are the training pictures that data.labelled_share leaves out, and it is 1: "
                f"there are none; give it less than 1 (a folder of that name is data.unlabelled=./{REST})"
            )


def at_least(name: str, value: float, least: int, words: str | None = None, most: int = MOST) -> None:
    """Raise a ConfigError that names an option whose number is too small or large, or none."""
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} must be {words or f'a whole number from {least} to {MOST}'}, got '{value}'")


def share(name: str, value: float) -> None:
    """Raise a ConfigError that names an option that is no number from 0 to 1."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ConfigError(f"{name} must be a number from 0 to 1, got '{value}'")


def one_of(name: str, value: Any, words: Sequence[str]) -> None:
    """Raise a ConfigError that names an option whose word is none of those that it may be."""
    if value not in words or isinstance(value, bool):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, words))}, got '{value}'")
