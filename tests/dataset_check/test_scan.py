"""Reading a whole data set: the numbers of a direct count, and every bad file in one report."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from idd_seg.data.camvid import CamVid
from idd_seg.data.voc import VOC
from idd_seg.dataset_check.scan import CHUNK, SplitReport, scan
from idd_seg.errors import ConfigError
from tests.data import layouts
from tests.data.layouts import make_data, own, photograph, raw, save, values
from tests.data.sources import settings

K = 11


def camvid(root: Path, **changes: Any) -> CamVid:
    return CamVid(root=str(root), **settings(K, **{"ignored": [11], **changes}))


def many(root: Path, number: int, seed: int = 0) -> Path:
    """Fill CamVid's training folders with pictures of several sizes."""
    rng = np.random.default_rng(seed)
    for i in range(number):
        size = layouts.SIZES[int(rng.integers(4))]
        save(photograph(rng, size), root / "train" / f"{i:04d}.png")
        choices = [*rng.permutation(K)[: rng.integers(1, 5)], 11, 255]
        save(values(rng, size, choices), root / "trainannot" / f"{i:04d}.png")
    return root


def direct(root: Path, split: str = "train") -> tuple[NDArray[np.int64], NDArray[np.int64], Counter[tuple[int, int]]]:
    """Return pixels and images of each class (ignored last) and the sizes, file after file."""
    pixels, images, sizes = np.zeros(K + 1, np.int64), np.zeros(K + 1, np.int64), Counter()
    for path in sorted((root / f"{split}annot").iterdir()):
        label = raw(path)
        for value in range(256):
            found = int((label == value).sum())
            if found:
                pixels[value if value < K else K] += found
        for place in range(K + 1):
            images[place] += ((label == place) if place < K else (label >= K)).any()
        sizes[label.shape] += 1
    return pixels, images, sizes


def assert_counts(report: SplitReport, root: Path, split: str = "train") -> None:
    pixels, images, sizes = direct(root, split)
    assert report.pixels.tolist() == pixels.tolist()
    assert report.images.tolist() == images.tolist()
    assert report.sizes == sizes


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many(tmp_path_factory.mktemp("scan") / "many ü", 10 * CHUNK + 5)


def test_numbers_are_those_of_a_direct_count(large: Path) -> None:
    report = scan(camvid(large), "train", workers=1)
    assert report.length == 10 * CHUNK + 5
    assert report.problems == []
    assert_counts(report, large)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(large: Path, tmp_path: Path) -> None:
    # In a copy, with bad files in several chunks.
    root = shutil.copytree(large, tmp_path / "copy")
    bad = [0, CHUNK - 1, CHUNK, 3 * CHUNK + 7, 10 * CHUNK + 4]
    for i in bad:
        (root / "train" / f"{i:04d}.png").write_bytes(b"")
    alone, helped = (scan(camvid(root), "train", workers=workers) for workers in (1, 2))
    names = [f"class {i}" for i in range(K)]
    assert alone.as_dict(names) == helped.as_dict(names)
    assert alone.problems == [f"{root / 'train' / f'{i:04d}.png'}: the file is empty (0 bytes)" for i in bad]
    for i in bad:
        (root / "trainannot" / f"{i:04d}.png").unlink()
    assert_counts(helped, root)


def test_a_split_smaller_than_a_chunk(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    for split in ("train", "val", "test"):
        report = scan(camvid(root), split)
        assert report.length == len(layouts.CAMVID[split])
        assert_counts(report, root, split)


def test_augmentation_and_scale_change_no_number(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    data = make_data("camvid", root, "data.counts=null", "data.image_scale=0.5", "data.augment.cat_max_ratio=0.5")
    assert_counts(scan(data, "train"), root)


def test_a_split_without_labels_is_read_too(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    (root / "test" / "Seq05VD_f05100.png").write_bytes(b"x")
    report = scan(camvid(root), "predict", workers=1)
    assert (report.length, report.pixels.sum(), sum(report.sizes.values())) == (2, 0, 1)
    assert len(report.problems) == 1


@pytest.mark.parametrize("masks", ["indices", "palette", "rgb"])
def test_masks_of_all_kinds_are_counted(masks: str, tmp_path: Path) -> None:
    root = own(tmp_path, masks=masks)
    report = scan(make_data("folder", root, f"data.masks={masks}"), "train", workers=1)
    truth = np.concatenate([raw(path).ravel() for path in (root / "truth" / "train").iterdir()])
    assert report.problems == []
    assert report.pixels.tolist() == [*(int((truth == i).sum()) for i in range(4)), int((truth == 255).sum())]


@pytest.mark.parametrize("ignore_index", [254, 11])
def test_another_index_of_what_is_ignored(ignore_index: int, tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    assert_counts(scan(camvid(root, ignore_index=ignore_index), "train", workers=1), root)


def test_the_index_of_what_is_ignored_may_be_no_class(tmp_path: Path) -> None:
    """The class would vanish from the mean without a word."""
    root = layouts.camvid(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.ignore_index=3 is the class 'class 3'"):
        camvid(root, ignore_index=3)


# What is wrong


def change(path: Path, how: Callable[[Image.Image], Image.Image]) -> None:
    with Image.open(path) as picture:
        made = how(picture.copy())
    made.save(path, "PNG")


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("train", lambda p: p.write_bytes(b""), "empty (0 bytes)"),
    ("train", lambda p: p.write_bytes(p.read_bytes()[:-30]), "damaged or truncated"),
    ("train", lambda p: p.write_text("<html>"), "no picture; PNG, JPEG"),
    ("trainannot", lambda p: change(p, lambda m: m.convert("RGB")), "data.masks=rgb"),
    ("trainannot", lambda p: save(raw(p).astype(np.uint16), p), "16-bit"),
    ("trainannot", lambda p: Image.open(p).convert("L").save(p, "JPEG"), "JPEG"),
    ("trainannot", lambda p: change(p, lambda m: m.resize((3, 4))), "the label is 3 x 4 pixels"),
    ("trainannot", lambda p: change(p, lambda m: m.point(lambda v: 77)), "value 77"),
    ("trainannot", lambda p: p.write_bytes(p.read_bytes()[:40]), "damaged or truncated"),
    ("trainannot", lambda p: change(p, lambda m: m.point(lambda v: 255)), "every pixel of its label is ignored"),
]


def spoiled(root: Path) -> list[tuple[str, str]]:
    """Damage one item after the other, and return what the report should say: name and fault."""
    expected = []
    for i, (folder, spoil, fault) in enumerate(DAMAGES):
        path = root / folder / f"{2 * i:04d}.png"
        spoil(path)
        expected.append((path.name, fault))
    return expected


def test_every_bad_file_is_in_one_report(tmp_path: Path) -> None:
    root = many(tmp_path / "data", 2 * len(DAMAGES) + 1)
    expected = spoiled(root)
    report = scan(camvid(root), "train", workers=1)
    assert len(report.problems) == len(expected)
    for problem, (name, fault) in zip(report.problems, expected, strict=True):
        assert name in problem
        assert fault in problem
    # A label without any class is odd, but it can be read.
    assert sum(report.sizes.values()) == report.length - len(DAMAGES) + 1
    json.dumps(report.as_dict([f"c{i}" for i in range(K)]), allow_nan=False)


def test_a_cache_hides_no_bad_file(tmp_path: Path) -> None:
    root = many(tmp_path / "data", 4)
    for i in (0, 2):
        (root / "train" / f"{i:04d}.png").write_bytes(b"")
    report = scan(camvid(root, cache="disk", cache_dir=str(tmp_path / "cache")), "train", workers=1)
    assert [Path(problem.split(":")[0]).name for problem in report.problems] == ["0000.png", "0002.png"]
    assert report.length == 4


@pytest.mark.parametrize("fault", ["folder", "label"])
def test_what_cannot_be_listed_is_a_problem_too(fault: str, tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    if fault == "folder":
        shutil.rmtree(root / "trainannot")
    else:
        (root / "trainannot" / "0001TP_006690.png").unlink()
    report = scan(camvid(root), "train", workers=1)
    assert report.length == 0
    assert len(report.problems) == 1
    assert "trainannot" in report.problems[0]


# Numbers of the complete split


@pytest.mark.parametrize(("number", "right"), [(4, True), (3, False), (5, False), (0, False)])
def test_the_number_of_items_is_compared(number: int, right: bool, tmp_path: Path) -> None:
    report = scan(camvid(layouts.camvid(tmp_path), counts={"train": number}), "train", workers=1)
    expected = [] if right else [f"4 items; the complete split has {number} (data.counts.train)"]
    assert report.problems == expected


def test_a_split_of_unknown_length_is_not_compared(tmp_path: Path) -> None:
    assert scan(camvid(layouts.camvid(tmp_path), counts={"train": 3}), "val", workers=1).problems == []


@pytest.mark.parametrize("name", sorted(layouts.LAYOUTS))
def test_the_small_copies_are_not_complete(name: str, tmp_path: Path) -> None:
    data = make_data(name, layouts.LAYOUTS[name](tmp_path))
    for split in ("train", "val"):
        (problem,) = scan(data, split, workers=1).problems
        assert f"the complete split has {data.counts[split]} " in problem


def test_voc_s_augmented_set_is_compared_with_its_own_number(tmp_path: Path) -> None:
    root = layouts.voc(tmp_path)
    counts = {"train": 3, "val": 2, "trainaug": 5}
    data = VOC(
        root=str(root), train_list="trainaug", train_labels="SegmentationClassAug", **settings(21, counts=counts)
    )
    assert scan(data, "train", workers=1).problems == []
