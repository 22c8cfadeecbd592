"""Small but complete copies of the data sets' folders: odd sizes, the owners' names and picture modes, decoys beside.

Each function fills a folder and returns the root that `data.root` takes; equal seeds give equal files.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from idd_seg.config import command_line, instantiate
from idd_seg.config.groups import config_dir
from idd_seg.data.pipeline.datamodule import SegmentationDataModule

assert command_line  # registers what the class list of data=folder is read by
Array = NDArray[Any]
Size = tuple[int, int]  # height, width
Layout = Callable[..., Path]

SIZES: tuple[Size, ...] = ((13, 17), (15, 22), (11, 19), (21, 14))

VOC_LISTS = {
    "train": ["2007_000032", "2007_000039", "2008_000002"],
    "val": ["2007_000033", "2007_000042"],
    "trainval": ["2007_000032", "2007_000033", "2007_000039", "2007_000042", "2008_000002"],
    "trainaug": ["2007_000032", "2007_000039", "2008_000002", "2008_000007", "2008_000008"],
    "test": ["2008_000006", "2008_000011"],
}
CITIES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000313", "ulm_000094_000019"],
    "val": ["frankfurt_000000_000294", "lindau_000000_000019", "munster_000173_000019"],
    "test": ["berlin_000000_000019", "bielefeld_000000_000321"],
}
# The owner's ids that are trained and judged, in the order of the train ids 0 to 18.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ADE20K = {"training": ("ADE_train_", 4), "validation": ("ADE_val_", 3)}
COCO = {
    "train2017": ["000000000009", "000000000025", "000000000030", "000000000034"],
    "val2017": ["000000000139", "000000000285"],
    "test2017": ["000000000001", "000000000016"],
}
# Values of COCO's pixel maps (id less 1) that no annotation has.
COCO_MISSING = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
CAMVID = {
    "train": ["0001TP_006690", "0001TP_006720", "0006R0_f00930", "Seq05VD_f00000"],
    "val": ["0016E5_07959", "0016E5_07961", "0016E5_07963"],
    "test": ["0001TP_008550", "Seq05VD_f05100"],
}
# A space, letters beyond ASCII, several dots.
OWN_NAMES = {"train": ["0001 street", "0002 Größe 街", "0003.frame.tail", "plain"], "val": ["v 1", "v.2"]}
OWN_COLOURS = {"road": [128, 64, 128], "house": [70, 70, 70], "sky": [1, 2, 3], "tree": [0, 0, 0]}
OWN_VOID = [255, 255, 255]


def compose(*overrides: str) -> Any:
    """Return the configuration of a training."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def make_data(name: str, root: Path, *overrides: str) -> SegmentationDataModule:
    """Build a data set as a run does, from its YAML."""
    return instantiate.make_data(compose(f"data={name}", f'data.root="{root}"', "data.num_workers=0", *overrides))


def moved(data: SegmentationDataModule, root: Path) -> SegmentationDataModule:
    """Return a built data set over another root: composing a configuration takes longer than all else in a test."""
    other = copy.copy(data)
    other.root, other.datasets = root, {}  # type: ignore[attr-defined]
    return other


def photograph(rng: np.random.Generator, size: Size) -> Image.Image:
    """Return a soft colour picture, which JPEG changes little."""
    colours = rng.integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(colours).resize(size[::-1], Image.Resampling.BICUBIC)


def values(rng: np.random.Generator, size: Size, choices: Sequence[int]) -> Array:
    """Return a label map that has blocks of 2 x 2 pixels of the choices, all of them if there is room."""
    height, width = -(-size[0] // 2), -(-size[1] // 2)
    order = np.resize(rng.permutation(np.array(choices, np.uint8)), height * width)
    blocks = rng.permutation(order).reshape(height, width)
    return np.ascontiguousarray(np.kron(blocks, np.ones((2, 2), np.uint8))[: size[0], : size[1]])


def save(picture: Image.Image | Array, path: Path, **options: Any) -> Path:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    made.save(path, **options)
    return path


def raw(path: Path) -> Array:
    """Return the numbers of a picture as Pillow reads them."""
    with Image.open(path) as picture:
        return np.array(picture)


def voc_palette() -> list[int]:
    """Return Pascal VOC's 256 colours: bits 0, 3, 6 of the index are the highest bits of red, 1, 4, 7 of green, ..."""
    flat = []
    for index in range(256):
        for channel in range(3):
            bits = [(index >> (3 * place + channel)) & 1 for place in range(3)]
            flat.append(bits[0] << 7 | bits[1] << 6 | bits[2] << 5)
    return flat


def voc(folder: Path, seed: int = 0) -> Path:
    """`VOCdevkit/VOC2012`: JPEG photographs, palette label maps with borders of 255, the augmented set in grey."""
    rng, root = np.random.default_rng(seed), folder / "VOCdevkit" / "VOC2012"
    names = sorted({*VOC_LISTS["trainval"], *VOC_LISTS["trainaug"], *VOC_LISTS["test"]})
    for i, name in enumerate(names):
        size = SIZES[i % len(SIZES)]
        save(photograph(rng, size), root / "JPEGImages" / f"{name}.jpg", quality=95)
        for kind, listed in (("SegmentationClass", "trainval"), ("SegmentationClassAug", "trainaug")):
            if name not in VOC_LISTS[listed]:
                continue
            label = values(rng, size, range(21))
            label[0] = label[:, -1] = 255
            picture = Image.fromarray(label)
            if kind == "SegmentationClass":
                picture.putpalette(voc_palette())
                save(photograph(rng, size), root / "SegmentationObject" / f"{name}.png")
            save(picture, root / kind / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    _write_lists(lists, VOC_LISTS)
    return root


def cityscapes(folder: Path, seed: int = 0) -> Path:
    """`leftImg8bit/` and `gtFine/` with all kinds of label files; those of the test split are void."""
    rng, root, size = np.random.default_rng(seed), folder / "cityscapes", (15, 30)
    train_ids = np.full(256, 255, np.uint8)
    train_ids[list(CITYSCAPES_IDS)] = range(19)
    for split, names in CITIES.items():
        for name in names:
            city = name.split("_")[0]
            save(photograph(rng, size), root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
            ids = values(rng, size, range(34)) if split != "test" else np.zeros(size, np.uint8)
            begin = root / "gtFine" / split / city / f"{name}_gtFine"
            save(ids, begin.with_name(f"{begin.name}_labelIds.png"))
            save(train_ids[ids], begin.with_name(f"{begin.name}_labelTrainIds.png"))
            save(photograph(rng, size).convert("RGBA"), begin.with_name(f"{begin.name}_color.png"))
            instances = np.where(ids > 23, ids.astype(np.uint16) * 1000, ids)
            save(instances.astype(np.uint16), begin.with_name(f"{begin.name}_instanceIds.png"))
            begin.with_name(f"{begin.name}_polygons.json").write_text(json.dumps({"imgHeight": size[0]}))
    return root


def ade20k(folder: Path, seed: int = 0) -> Path:
    """`ADEChallengeData2016`: JPEG photographs (one of them grey), label maps 0 to 150, and the test photographs."""
    rng, root = np.random.default_rng(seed), folder / "ADEChallengeData2016"
    for split, (begin, number) in ADE20K.items():
        for i in range(number):
            size, name = SIZES[i % len(SIZES)], f"{begin}{i + 1:08d}"
            picture = photograph(rng, size).convert("L" if i == 1 else "RGB")
            save(picture, root / "images" / split / f"{name}.jpg", quality=95)
            save(values(rng, size, [0, *rng.permutation(150)[:30] + 1]), root / "annotations" / split / f"{name}.png")
    for i in range(2):
        save(photograph(rng, SIZES[i]), root / "release_test" / "testing" / f"ADE_test_{i + 1:08d}.jpg")
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    (root / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    return root


def coco_stuff(folder: Path, seed: int = 0) -> Path:
    """`images/` (one of them grey) and `annotations/` as pixel maps: the owner's id less 1, and 255."""
    rng, root = np.random.default_rng(seed), folder / "coco_stuff"
    known = np.array([v for v in range(182) if v not in COCO_MISSING])
    for split, names in COCO.items():
        for i, name in enumerate(names):
            size = SIZES[i % len(SIZES)]
            picture = photograph(rng, size).convert("L" if i == 1 else "RGB")
            save(picture, root / "images" / split / f"{name}.jpg", quality=95)
            if split != "test2017":
                chosen = [0, 181, 255, *rng.permutation(known)[:30]]
                save(values(rng, size, chosen), root / "annotations" / split / f"{name}.png")
    return root


def camvid(folder: Path, seed: int = 0) -> Path:
    """The folders of the SegNet release, with its lists of absolute paths, which lead nowhere."""
    rng, root, size = np.random.default_rng(seed), folder / "CamVid", (13, 17)
    for split, names in CAMVID.items():
        for name in names:
            save(photograph(rng, size), root / split / f"{name}.png")
            save(values(rng, size, range(12)), root / f"{split}annot" / f"{name}.png")
        lines = [f"/SegNet/CamVid/{split}/{n}.png /SegNet/CamVid/{split}annot/{n}.png" for n in names]
        (root / f"{split}.txt").write_text("\n".join(lines))
    return root


def own_classes(root: Path, masks: str = "indices") -> Path:
    """Write the class list of the own folders: values 10, 20, 30, 40 (void: 0) or colours."""
    lines = ["classes:"]
    for i, (name, colour) in enumerate(OWN_COLOURS.items()):
        value = f", value: {10 * (i + 1)}" if masks == "indices" else ""
        lines.append(f"  - {{name: {name}, colour: {colour}{value}}}")
    lines.append(f"ignore: [{0 if masks == 'indices' else OWN_VOID}]")
    path = root / "classes.yaml"
    root.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own_mask(classes: Array, masks: str) -> Image.Image:
    """Return class ids 0 to 3 (255: void) as a mask that the class list of `own_classes` reads."""
    ids = np.where(classes == 255, 4, classes)
    if masks == "indices":
        return Image.fromarray(np.array([10, 20, 30, 40, 0], np.uint8)[ids])
    colours = np.array([*OWN_COLOURS.values(), OWN_VOID], np.uint8)
    if masks == "rgb":
        return Image.fromarray(colours[ids])
    # Indices that are not the class ids: only the colours tell.
    order = np.array([3, 1, 4, 0, 2])
    picture = Image.fromarray(order.argsort().astype(np.uint8)[ids])
    picture.putpalette(colours[order].ravel().tolist())
    return picture


def own(folder: Path, seed: int = 0, masks: str = "indices", nested: bool = False) -> Path:
    """`images/`, `masks/` and `classes.yaml`, as data=folder finds them by itself; `truth/` has the class ids.

    Args:
        masks: how they are stored: `indices`, `palette` or `rgb`.
        nested: in folders below, with the same file names in each.
    """
    rng, root = np.random.default_rng(seed), folder / f"own ü {masks}"
    own_classes(root, masks)
    for split, names in OWN_NAMES.items():
        for i, name in enumerate(names):
            size = SIZES[i % len(SIZES)]
            below = Path(f"city {i % 2}") / "a.b" if nested else Path()
            stem = f"{i // 2}" if nested else name
            classes = values(rng, size, [0, 1, 2, 3, 255])
            save(photograph(rng, size), root / "images" / split / below / f"{stem}.{'jpg' if i == 1 else 'png'}")
            save(own_mask(classes, masks), root / "masks" / split / below / f"{stem}.png")
            save(classes, root / "truth" / split / below / f"{stem}.png")
    return root


def write_list(path: Path, lines: Iterable[str]) -> Path:
    """Write a list file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _write_lists(folder: Path, lists: dict[str, list[str]]) -> None:
    for name, lines in lists.items():
        write_list(folder / f"{name}.txt", lines)


LAYOUTS: dict[str, Layout] = {
    "voc": voc,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco_stuff": coco_stuff,
    "camvid": camvid,
}
