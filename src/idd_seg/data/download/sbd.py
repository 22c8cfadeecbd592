"""Pascal VOC's augmented training set, from the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from idd_seg.data.download.matlab5 import read_field
from idd_seg.data.pipeline.files import read_list
from idd_seg.data.pipeline.source import UInt8
from idd_seg.errors import DataError
from idd_seg.ops.colours import bit_colour

CLASSES = 21
MAT_LIMIT = 4 << 20  # bytes of a .mat file; the real ones have some kilobytes
CONTENT_LIMIT = 16 << 20  # bytes of its content, unpacked
LISTS = Path("ImageSets") / "Segmentation"
LABELS = "SegmentationClassAug"


@dataclass(frozen=True)
class AugmentedVOC:
    """Write `SegmentationClassAug/NAME.png` and the list `trainaug.txt` into the folder of Pascal VOC 2012.

    The images are SBD's train and val and VOC's train, without VOC's val. Where VOC has an annotation of its own, with
    its border of 255, it is copied; the others are converted. A label map that is there is kept; the list comes last.

    Attributes:
        folder: with SBD's `cls/`, `train.txt` and `val.txt`, below the root.
        expected: number of images of the complete set.
    """

    folder: str = "sbd"
    expected: int | None = 10582

    def done(self, root: Path) -> bool:
        """Tell whether the list is there, and every label map that it names."""
        path = root / LISTS / "trainaug.txt"
        return path.is_file() and all((root / LABELS / f"{name}.png").is_file() for name in read_list(path))

    def __call__(self, root: Path, say: Callable[[str], None] = print) -> None:
        """Convert what is missing.

        Raises:
            DataError: that names the file that is missing, damaged, or of another size than its photograph.
        """
        if self.done(root):
            return
        names = self.names(root)
        photographs = [root / "JPEGImages" / f"{name}.jpg" for name in names]
        if absent := [path for path in photographs if not path.is_file()]:
            raise DataError(
                f"{len(absent)} of {len(names)} photographs of the augmented set are missing, the first is "
                f"'{absent[0]}'; unpack Pascal VOC 2012 first"
            )
        own = {name for name in names if (root / "SegmentationClass" / f"{name}.png").is_file()}
        (root / LABELS).mkdir(exist_ok=True)
        for name, photograph in track(list(zip(names, photographs, strict=True)), description="converting SBD"):
            target = root / LABELS / f"{name}.png"
            if target.is_file():
                continue
            if name in own:
                _write(target, (root / "SegmentationClass" / f"{name}.png").read_bytes())
            else:
                _write(target, _converted(root / self.folder / "cls" / f"{name}.mat", photograph))
        _write(root / LISTS / "trainaug.txt", "".join(f"{name}\n" for name in names).encode())
        say(f"trainaug: {len(names)} images, {len(own)} with VOC's own annotation, {len(names) - len(own)} with SBD's")
        if self.expected not in (len(names), None):
            say(f"warning: the augmented set has {self.expected} images, and there are {len(names)}; lists are amiss")

    def names(self, root: Path) -> list[str]:
        """Return the names of the augmented training set, in order."""
        theirs = [read_list(root / self.folder / f"{split}.txt") for split in ("train", "val")]
        train, val = (read_list(root / LISTS / f"{split}.txt") for split in ("train", "val"))
        return sorted({*theirs[0], *theirs[1], *train} - {*val})


def _converted(path: Path, photograph: Path) -> bytes:
    """Return a .mat file's label map as a PNG in Pascal VOC's palette."""
    label = read_mat(path)
    try:
        with Image.open(photograph, formats=("JPEG",)) as picture:
            size = picture.size
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{photograph}: the picture can't be read ({error})") from error
    if size != label.shape[::-1]:
        raise DataError(
            f"{path}: the label is {label.shape[1]} x {label.shape[0]} pixels, its photograph {size[0]} x {size[1]}"
        )
    image = Image.fromarray(label)
    image.putpalette([channel for index in range(256) for channel in bit_colour(index)])
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def read_mat(path: Path) -> UInt8:
    """Read the class map (H, W) of one of SBD's `cls/*.mat`, values 0 to 20.

    Raises:
        DataError: for a file that is missing, too large, damaged, or holds anything else.
    """
    try:
        if path.stat().st_size > MAT_LIMIT:
            raise DataError(f"{path}: {path.stat().st_size} bytes are more than such a file has; it is refused")
        label = read_field(path.read_bytes(), "GTcls", "Segmentation", CONTENT_LIMIT)
    except OSError as error:
        raise DataError(f"{path}: the file can't be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: the file is damaged, or none of SBD's class maps ({error})") from error
    if label.min() < 0 or label.max() >= CLASSES:
        stray = label.min() if label.min() < 0 else label.max()
        raise DataError(f"{path}: the class map has the value {stray}; there are the classes 0 to {CLASSES - 1}")
    return np.ascontiguousarray(label, np.uint8)


def _write(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that no half file is ever seen."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DataError(f"{path}: can't be written ({error.strerror})") from error
