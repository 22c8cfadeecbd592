"""Folders as users have them, drawn at random: each photograph gets its own mask with its own classes, or one is told.

Each photograph has a brightness, and each mask a first row, that say which of the set it is. So what was read can be
compared with what was meant, whatever the files are called and however they are stored.
"""

from __future__ import annotations

import random
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.data.folder import Folder
from idd_seg.data.pipeline.label_check import sample
from idd_seg.errors import UserError
from tests.chaos.outcome import Outcome
from tests.data.test_formats import png16

COUNT, CLASSES, SIZE = 4, 3, (10, 16)
STEMS = ("street", "über weg", "frame.0001", "a#1 (copy)", "p1", "p10", "p1_1", "x'y", "leftImg8bit", "mask", "no")
Array = NDArray[np.uint8]


@dataclass
class Drawn:
    """A folder that was written, and what is meant by it.

    Attributes:
        stems: of the photographs, by their number.
        told: whether it has a fault: then a message is right, and so is reading what is meant.
        changes: options of `Folder` beyond the patterns.
        values: class -> what the masks hold.
        faults: what was drawn, for the report.
    """

    root: Path
    stems: list[str]
    image_ending: str = ".png"
    mask_ending: str = ".png"
    suffix: str = ""
    image_suffix: str = ""
    told: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    values: list[int] = field(default_factory=lambda: list(range(CLASSES)))
    images: str = "images/*"
    labels: str = "masks/*"
    faults: list[str] = field(default_factory=list)

    def image(self, number: int) -> Path:
        return self.root / Path(self.images).parent / (self.stems[number] + self.image_suffix + self.image_ending)

    def mask(self, number: int) -> Path:
        return self.root / Path(self.labels).parent / (self.stems[number] + self.suffix + self.mask_ending)


def photograph(number: int) -> Array:
    return np.full((*SIZE, 3), 40 + 50 * number, np.uint8)


def classes(number: int) -> Array:
    """Return the classes of a mask: the first row says the number in base 3, the rest is random."""
    found = np.random.default_rng(number).integers(0, CLASSES, SIZE).astype(np.uint8)
    found[0, :2] = number // CLASSES, number % CLASSES
    return found


def number_of(image: Array) -> int:
    return round((float(image.mean()) - 40) / 50)


# What is drawn


def draw(folder: Path, rng: random.Random) -> Drawn:
    """Write a folder with a layout, and up to two faults or habits."""
    drawn = Drawn(folder, rng.sample(STEMS, COUNT))
    drawn.image_ending = rng.choice((".png", ".jpg", ".JPG", ".jpeg", ".PNG", ".webp", ".tif"))
    drawn.mask_ending = rng.choice((".png", ".PNG", ".bmp", ".tif"))
    drawn.suffix = rng.choice(("", "", "_mask", "_labelIds", "-seg"))
    drawn.image_suffix = rng.choice(("", "", "", "_image", "_leftImg8bit"))
    if rng.random() < 0.25 and (drawn.suffix or drawn.image_ending.lower() != drawn.mask_ending.lower()):
        together(drawn)
    for way in rng.sample(NAMES, 1) + rng.sample(VALUES, 1):
        way(drawn, rng)
        drawn.faults.append(way.__name__)
    for number in range(COUNT):
        write(drawn.image(number), photograph(number))
        write(drawn.mask(number), np.array(drawn.values, np.uint8)[classes(number)])
    for way in rng.sample(AFTER, 1):
        way(drawn, rng)
        drawn.faults.append(way.__name__)
    return drawn


def write(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **({"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}))


def together(drawn: Drawn) -> None:
    drawn.images, drawn.labels = "all/*", f"all/*{drawn.suffix}{drawn.mask_ending}"


# Habits and faults of names


def plain(drawn: Drawn, rng: random.Random) -> None:
    pass


def other_forms(drawn: Drawn, rng: random.Random) -> None:
    """Photographs come from one system, masks from another."""
    drawn.stems = [unicodedata.normalize(rng.choice(("NFC", "NFD")), stem) for stem in drawn.stems]


def listed(drawn: Drawn, rng: random.Random) -> None:
    comma = rng.choice(("\t", ";", ","))
    quote = comma in ";," or rng.random() < 0.5
    end, head = rng.choice(("\n", "\r\n")), rng.choice(("", "\ufeff", "# mine\n", "\n"))
    start = rng.choice(("", "./", f"{drawn.root}/"))

    def written(path: Path) -> str:
        text = start + path.relative_to(drawn.root).as_posix()
        return f'"{text}"' if quote else text

    lines = [comma.join((written(drawn.image(i)), written(drawn.mask(i)))) for i in range(COUNT)]
    text = head + end.join(lines) + rng.choice(("", end, end + end))
    name = "train.csv" if comma != "\t" else "train.txt"
    drawn.root.mkdir(parents=True, exist_ok=True)
    drawn.root.joinpath(name).write_bytes(text.encode())
    places = [drawn.image(i) for i in range(COUNT)]
    drawn.images, drawn.image = name, places.__getitem__  # type: ignore[method-assign]


def split_folders(drawn: Drawn, rng: random.Random) -> None:
    """The same name in two folders, as cameras number them."""
    if drawn.images == "all/*":
        return
    drawn.images, drawn.labels = "images/**/*", "masks/**/*"
    drawn.stems = ["a/p1", "b/p1", "a/p2", "b/p10"]
    for kind, path in (("image", drawn.root / "images"), ("mask", drawn.root / "masks")):
        last = drawn.image_suffix + drawn.image_ending if kind == "image" else drawn.suffix + drawn.mask_ending
        setattr(drawn, kind, [path / f"{stem}{last}" for stem in drawn.stems].__getitem__)


NAMES = (plain, other_forms, listed, split_folders)


# What masks hold


def as_they_are(drawn: Drawn, rng: random.Random) -> None:
    pass


def by_a_table(drawn: Drawn, rng: random.Random) -> None:
    drawn.values = rng.sample(range(1, 250), CLASSES)
    drawn.changes["label_values"] = {value: i for i, value in enumerate(drawn.values)}


def of_no_class(drawn: Drawn, rng: random.Random) -> None:
    """One of the values is in no table."""
    drawn.values[rng.randrange(CLASSES)] = rng.randrange(CLASSES, 250)
    drawn.told = True


def never_seen(drawn: Drawn, rng: random.Random) -> None:
    """One class has the value of another: it does not occur."""
    drawn.values = [0, 1, 1]
    drawn.told = True


def all_ignored(drawn: Drawn, rng: random.Random) -> None:
    drawn.values = [255] * CLASSES
    drawn.told = True


def black_and_white(drawn: Drawn, rng: random.Random) -> None:
    drawn.values = [0, 255, 255]
    drawn.told = True


VALUES = (as_they_are, as_they_are, by_a_table, of_no_class, never_seen, all_ignored, black_and_white)


# What is done to the files afterwards


def nothing(drawn: Drawn, rng: random.Random) -> None:
    pass


def sidecars(drawn: Drawn, rng: random.Random) -> None:
    for number in range(COUNT):
        for path in (drawn.image(number), drawn.mask(number)):
            place = rng.choice((f"._{path.name}", f".ipynb_checkpoints/{path.stem}-checkpoint{path.suffix}"))
            target = path.parent / place
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(rng.choice((b"\0\5\x16\7", path.read_bytes())))


def lost_mask(drawn: Drawn, rng: random.Random) -> None:
    drawn.mask(rng.randrange(COUNT)).unlink()
    drawn.told = True


def deep_photographs(drawn: Drawn, rng: random.Random) -> None:
    for number in range(COUNT):
        path, deep = drawn.image(number), photograph(number).astype(np.uint16) * 256
        if path.suffix.lower() == ".png":
            png16(path, deep)
        elif path.suffix == ".tif":
            assert cv2.imwrite(str(path), deep)


def deep_masks(drawn: Drawn, rng: random.Random) -> None:
    """Masks of 16 bits, grey or in colour."""
    if drawn.mask_ending.lower() != ".png":
        return
    channels = rng.choice((1, 3))
    for number in range(COUNT):
        values = np.array(drawn.values, np.uint16)[classes(number)]
        png16(drawn.mask(number), values if channels == 1 else np.repeat(values[..., None], 3, axis=2))
    drawn.told = True


def coloured_masks(drawn: Drawn, rng: random.Random) -> None:
    for number in range(COUNT):
        values = np.array(drawn.values, np.uint8)[classes(number)]
        write(drawn.mask(number), np.repeat(values[..., None], 3, axis=2))
    drawn.told = True


def lossy_masks(drawn: Drawn, rng: random.Random) -> None:
    """JPEG behind the ending of a PNG."""
    for number in range(COUNT):
        values = np.array(drawn.values, np.uint8)[classes(number)]
        Image.fromarray(values).save(drawn.mask(number), "JPEG")
    drawn.told = True


def clear_photographs(drawn: Drawn, rng: random.Random) -> None:
    """A fourth channel that is opaque."""
    if drawn.image_ending.lower() not in (".png", ".webp", ".tif"):
        return
    for number in range(COUNT):
        alpha = np.full((*SIZE, 1), 255, np.uint8)
        write(drawn.image(number), np.concatenate([photograph(number), alpha], axis=2))


def other_size(drawn: Drawn, rng: random.Random) -> None:
    number = rng.randrange(COUNT)
    write(drawn.mask(number), np.array(drawn.values, np.uint8)[classes(number)][:-2])
    drawn.told = True


AFTER = (
    *(nothing, sidecars, lost_mask, deep_photographs, deep_masks, coloured_masks, lossy_masks, clear_photographs),
    *(other_size,),
)


# What is read


def read(drawn: Drawn) -> list[str]:
    """Read a split as a training does, and return what is wrong with it; [] if all is as it was meant."""
    ending = drawn.images.lower().endswith((".txt", ".csv"))
    data = Folder(
        str(drawn.root),
        {"train": drawn.images, "val": drawn.images},
        {} if ending else {"train": drawn.labels, "val": drawn.labels},
        **{"name": "folder", "num_classes": CLASSES, "class_names": list("abc")},
        **{"palette": [[i] * 3 for i in range(CLASSES)], "mean": [0.5] * 3, "std": [0.2] * 3},
        **drawn.changes,
    )
    data.setup("fit")
    for finding in sample(data, "train"):
        if finding.fatal:
            raise UserError(finding.text)
        warnings.warn(finding.text, stacklevel=1)
    source = data.make_source("train")
    wrong, seen = [], []
    for index in range(len(source)):
        item = source[index]
        number = number_of(item.image)
        seen.append(number)
        assert item.label is not None
        if not np.array_equal(data.labels(item.label, item.name), meant(drawn, number)):
            wrong.append(f"{item.name}: not the mask of photograph {number}")
    if sorted(seen) != list(range(COUNT)):
        wrong.append(f"photographs {sorted(seen)}")
    return wrong


def meant(drawn: Drawn, number: int) -> Array:
    """Return the class ids that the values stand for by the options."""
    table = drawn.changes.get("label_values") or {i: i for i in range(CLASSES)}
    return np.array([table.get(value, 255) for value in drawn.values], np.uint8)[classes(number)]


def folders(folder: Path, seed: int, number: int) -> Iterator[Outcome]:
    """Draw and read so many folders."""
    for index in range(number):
        rng = random.Random(f"{seed}/folders/{index}")
        drawn = draw(folder / f"folder{index}", rng)
        case = f"{index}: {', '.join(drawn.faults)}; {drawn.image_ending} {drawn.suffix}{drawn.mask_ending}"
        yield _judged(drawn, case)


def _judged(drawn: Drawn, case: str) -> Outcome:
    outcome = Outcome("folders of pictures", case)
    with warnings.catch_warnings(record=True) as told, redirect_stdout(StringIO()):
        warnings.simplefilter("always")
        try:
            wrong = read(drawn)
            outcome.noticed = bool(told)
            # A fault of which nobody is told is wrong, even where the pixels are as they were meant.
            if wrong or (drawn.told and not told):
                outcome.bad, outcome.note = "wrong", "; ".join(wrong) or "nothing was told"
        except UserError as error:
            outcome.noticed, outcome.note = True, str(error)[:500]
            if not drawn.told:
                outcome.bad = "unexplained"
        except Exception:
            outcome.bad, outcome.note = "unexplained", traceback.format_exc()[-2000:]
    return outcome
