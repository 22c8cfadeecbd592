"""Each data set, built from its YAML over a small copy of its folders: files, pairs, classes, splits, mistakes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.dataset import SegmentationDataset
from idd_seg.data.voc import VOC
from idd_seg.errors import ConfigError, DataError
from tests.data import layouts
from tests.data.layouts import LAYOUTS, Array, make_data, moved, raw, save


class Expected(NamedTuple):
    """What a split holds.

    Attributes:
        files: of the photographs and the label maps (None: there is none), relative to the root.
        table: what the values 0 to 255 of a label map become; -1 for those that are refused.
    """

    files: list[tuple[str, str | None]]
    table: Array


def table(classes: dict[int, int]) -> Array:
    found = np.full(256, -1)
    found[list(classes)] = list(classes.values())
    return found


IDENTITY_21 = table({**{i: i for i in range(21)}, 255: 255})
CAMVID_TABLE = table({**{i: i for i in range(11)}, 11: 255, 255: 255})
ADE_TABLE = table({0: 255, 255: 255, **{i: i - 1 for i in range(1, 151)}})
COCO_KNOWN = [v for v in range(182) if v not in layouts.COCO_MISSING]
COCO_TABLE = table({255: 255, **dict.fromkeys(layouts.COCO_MISSING, 255), **{v: i for i, v in enumerate(COCO_KNOWN)}})
CITY_TABLE = table({**dict.fromkeys(range(34), 255), 255: 255, **{v: i for i, v in enumerate(layouts.CITYSCAPES_IDS)}})


def voc_files(names: list[str], labels: str | None) -> list[tuple[str, str | None]]:
    return [(f"JPEGImages/{n}.jpg", f"{labels}/{n}.png" if labels else None) for n in names]


def city_files(split: str, kind: str | None) -> list[tuple[str, str | None]]:
    return [
        (
            f"leftImg8bit/{split}/{n.split('_')[0]}/{n}_leftImg8bit.png",
            f"gtFine/{split}/{n.split('_')[0]}/{n}_gtFine_{kind}.png" if kind else None,
        )
        for n in layouts.CITIES[split]
    ]


def ade_files(split: str) -> list[tuple[str, str | None]]:
    begin, number = layouts.ADE20K[split]
    names = [f"{begin}{i + 1:08d}" for i in range(number)]
    return [(f"images/{split}/{n}.jpg", f"annotations/{split}/{n}.png") for n in names]


ADE_TEST: list[tuple[str, str | None]] = [(f"release_test/testing/ADE_test_0000000{i}.jpg", None) for i in (1, 2)]


def coco_files(split: str) -> list[tuple[str, str | None]]:
    labelled = split != "test2017"
    return [
        (f"images/{split}/{n}.jpg", f"annotations/{split}/{n}.png" if labelled else None) for n in layouts.COCO[split]
    ]


def camvid_files(split: str, labelled: bool = True) -> list[tuple[str, str | None]]:
    return [(f"{split}/{n}.png", f"{split}annot/{n}.png" if labelled else None) for n in layouts.CAMVID[split]]


LISTS = layouts.VOC_LISTS
EXPECTED: dict[tuple[str, str], Expected] = {
    **{
        ("voc", s): Expected(voc_files(LISTS[s], "SegmentationClass"), IDENTITY_21)
        for s in ("train", "val", "trainval")
    },
    **{("voc", s): Expected(voc_files(LISTS["test"], None), IDENTITY_21) for s in ("test", "predict")},
    **{("cityscapes", s): Expected(city_files(s, "labelIds"), CITY_TABLE) for s in ("train", "val")},
    **{("cityscapes", s): Expected(city_files("test", None), CITY_TABLE) for s in ("test", "predict")},
    ("ade20k", "train"): Expected(ade_files("training"), ADE_TABLE),
    ("ade20k", "val"): Expected(ade_files("validation"), ADE_TABLE),
    **{("ade20k", s): Expected(ADE_TEST, ADE_TABLE) for s in ("test", "predict")},
    **{("coco_stuff", s): Expected(coco_files(f"{s}2017"), COCO_TABLE) for s in ("train", "val", "test")},
    ("coco_stuff", "predict"): Expected(coco_files("test2017"), COCO_TABLE),
    **{("camvid", s): Expected(camvid_files(s), CAMVID_TABLE) for s in ("train", "val", "test")},
    ("camvid", "predict"): Expected(camvid_files("test", labelled=False), CAMVID_TABLE),
}
NAMES = sorted(LAYOUTS)
Built = dict[str, SegmentationDataModule]
Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of all data sets; tests that change them take a copy."""
    folder = tmp_path_factory.mktemp("layouts") / "data ü"
    return {name: layout(folder) for name, layout in LAYOUTS.items()}


@pytest.fixture(scope="module")
def built(roots: dict[str, Path]) -> dict[str, SegmentationDataModule]:
    plain = [
        "data.augment.crop=null",
        "data.augment.scale=[1,1]",
        "data.augment.flip=0",
        "data.augment.photometric=null",
    ]
    return {name: make_data(name, root, *plain) for name, root in roots.items()}


@pytest.fixture
def copy(roots: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(roots[name], tmp_path / "a copy", symlinks=True)


def test_every_split_is_expected(built: Built) -> None:
    assert {(name, split) for name in NAMES for split in built[name].splits} == set(EXPECTED)


# What is found and read


@pytest.mark.parametrize(("name", "split"), list(EXPECTED))
def test_files_are_found_in_order_and_paired(name: str, split: str, roots: dict[str, Path], built: Built) -> None:
    root, source = roots[name], built[name].make_source(split)
    files = EXPECTED[name, split].files
    assert list(source.pairs) == [(root / image, None if label is None else root / label) for image, label in files]
    assert [source.name(i) for i in range(len(source))] == [str(root / image) for image, _ in files]
    assert len({source.key(i) for i in range(len(source))}) == len(files)


@pytest.mark.parametrize(("name", "split"), list(EXPECTED))
def test_pictures_and_classes_are_those_of_the_files(
    name: str, split: str, roots: dict[str, Path], built: Built
) -> None:
    dataset, expected = built[name].dataset(split), EXPECTED[name, split]
    seen: set[int] = set()
    for i, (image, label) in enumerate(expected.files):
        sample = dataset[0, i]
        with Image.open(roots[name] / image) as picture:
            photograph = np.array(picture.convert("RGB")).astype(int)
        difference = np.abs(sample.image.permute(1, 2, 0).numpy() - photograph)
        assert difference.max() <= (0 if image.endswith(".png") else 6)  # decoders round JPEG differently
        assert sample.label.shape == sample.image.shape[-2:]
        assert sample.box.tolist() == [0, 0, 1, 1]
        truth = np.full(photograph.shape[:2], 255) if label is None else expected.table[raw(roots[name] / label)]
        assert np.array_equal(sample.label.numpy(), truth)
        seen |= set(np.unique(truth).tolist())
    assert -1 not in seen
    assert len(seen) > 10 or seen == {255}  # the copies tell classes apart


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_mapped_or_refused(name: str, built: Built) -> None:
    data, expected = built[name], EXPECTED[name, "train"].table
    classes = expected[(expected >= 0) & (expected != 255)]
    assert sorted(classes) == list(range(data.num_classes))
    for value in range(256):
        label = np.full((2, 3), value, np.uint8)
        if expected[value] >= 0:
            assert (data.labels(label, "x") == expected[value]).all(), value
        else:
            with pytest.raises(DataError, match=f"x: .* value {value};"):
                data.labels(label, "x")


@pytest.mark.parametrize(("name", "split"), list(EXPECTED))
def test_splits_know_whether_they_have_labels(name: str, split: str, built: Built) -> None:
    assert built[name].labelled(split) == (EXPECTED[name, split].files[0][1] is not None)


@pytest.mark.parametrize("name", NAMES)
def test_the_predict_loader_yields_every_photograph_once_with_nothing_to_judge(
    name: str, built: Built, roots: dict[str, Path]
) -> None:
    data = built[name]
    data.setup("predict")
    batches = list(data.predict_dataloader())
    files = [str(roots[name] / image) for image, _ in EXPECTED[name, "predict"].files]
    assert [n for batch in batches for n in batch.names] == files
    assert all((batch.label == 255).all() for batch in batches)


@pytest.mark.parametrize("name", NAMES)
def test_training_batches_have_the_crop_of_the_yaml(name: str, roots: dict[str, Path]) -> None:
    data = make_data(name, roots[name], "data.batch_size=2")
    data.setup("fit")
    crop = (512, 1024) if name == "cityscapes" else (360, 360) if name == "camvid" else (512, 512)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (2, 3, *crop)
    assert batch.label.shape == (2, *crop)
    shown = batch.label != 255
    assert shown.any()
    assert batch.label[shown].max() < data.num_classes


@pytest.mark.parametrize("name", NAMES)
def test_a_split_that_there_is_not_is_refused(name: str, built: Built) -> None:
    with pytest.raises(ConfigError, match=rf"data={name} has no split 'valid'; it has train, val"):
        built[name].dataset("valid")


@pytest.mark.parametrize(
    ("name", "split"), [("voc", "test"), ("cityscapes", "test"), ("ade20k", "test"), ("coco_stuff", "predict")]
)
def test_a_split_without_labels_cannot_be_trained_on(name: str, split: str, built: Built) -> None:
    data = built[name]
    dataset = SegmentationDataset(data.make_source(split), data.labels, 255, 0, augmentation=data.augment)
    with pytest.raises(DataError, match=r"no label.*can't be trained on"):
        dataset[0, 0]


# Options of single data sets


def test_voc_s_augmented_training_set(roots: dict[str, Path]) -> None:
    root = roots["voc"]
    data = make_data("voc", root, "data.train_list=trainaug", "data.train_labels=SegmentationClassAug")
    expected = voc_files(LISTS["trainaug"], "SegmentationClassAug")
    assert list(data.make_source("train").pairs) == [(root / image, root / str(label)) for image, label in expected]
    assert list(data.make_source("val").pairs) == [
        (root / i, root / str(label)) for i, label in EXPECTED["voc", "val"].files
    ]
    for i, (_, label) in enumerate(expected):
        assert np.array_equal(data.make_source("train")[i].label, raw(root / str(label)))


def test_voc_s_test_list_has_no_labels_even_for_training(roots: dict[str, Path]) -> None:
    data = make_data("voc", roots["voc"], "data.train_list=test")
    assert isinstance(data, VOC)
    assert all(pair.label is None for pair in data.make_source("train").pairs)


def test_cityscapes_train_ids_give_the_same_classes(roots: dict[str, Path]) -> None:
    by_ids, by_train_ids = (
        make_data("cityscapes", roots["cityscapes"], f"data.labels={k}") for k in ("labelIds", "labelTrainIds")
    )
    assert all("labelTrainIds" in str(pair.label) for pair in by_train_ids.make_source("val").pairs)
    for i in range(3):
        a, b = by_ids.dataset("val")[0, i], by_train_ids.dataset("val")[0, i]
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.label, b.label)
    # Ids that are no train ids are not taken for some.
    with pytest.raises(DataError, match="value 33"):
        by_train_ids.labels(np.array([[0, 33]], np.uint8), "x")


def test_cityscapes_refuses_other_kinds_of_labels(roots: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"data\.labels must be labelIds or labelTrainIds, got 'color'"):
        make_data("cityscapes", roots["cityscapes"], "data.labels=color")


def test_cityscapes_leaves_other_pictures_in_the_folders_alone(copy: Copy, built: Built) -> None:
    root = copy("cityscapes")
    save(Image.new("RGB", (30, 15)), root / "leftImg8bit" / "val" / "lindau" / "notes.png")
    save(Image.new("RGB", (30, 15)), root / "leftImg8bit" / "val" / "lindau" / "lindau_000000_000019_rightImg8bit.png")
    assert len(moved(built["cityscapes"], root).make_source("val")) == 3


# What is missing


FOLDERS = {
    "voc": [("train", "JPEGImages"), ("train", "SegmentationClass"), ("val", "ImageSets/Segmentation"), ("val", ".")],
    "cityscapes": [("train", "leftImg8bit/train"), ("val", "gtFine/val"), ("test", "leftImg8bit/test"), ("val", ".")],
    "ade20k": [
        ("train", "images/training"),
        ("val", "annotations/validation"),
        ("test", "release_test/testing"),
        ("val", "."),
    ],
    "coco_stuff": [
        ("train", "images/train2017"),
        ("val", "annotations/val2017"),
        ("test", "images/test2017"),
        ("val", "."),
    ],
    "camvid": [("train", "train"), ("val", "valannot"), ("predict", "test"), ("val", ".")],
}


@pytest.mark.parametrize(("name", "split", "folder"), [(n, s, f) for n, found in FOLDERS.items() for s, f in found])
@pytest.mark.parametrize("kind", ["missing", "a file", "empty"])
def test_a_folder_that_is_not_there_is_named(
    name: str, split: str, folder: str, kind: str, copy: Copy, built: Built
) -> None:
    root = copy(name)
    gone = root / folder
    shutil.rmtree(gone)
    if kind == "a file":
        gone.write_text("")
    elif kind == "empty":
        gone.mkdir()
    with pytest.raises(DataError) as caught:
        moved(built[name], root).dataset(split)
    message = str(caught.value)
    assert str(gone) in message
    if kind != "empty" and folder != "ImageSets/Segmentation":
        assert "data.root=PATH" in message or "no image file" in message or "no label file" in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named(name: str, which: int, copy: Copy, built: Built) -> None:
    root = copy(name)
    files = EXPECTED[name, "train"].files[1]
    (root / str(files[which])).unlink()
    data = moved(built[name], root)
    if which == 0 and name != "voc":  # nothing names the photographs but the folder
        assert len(data.dataset("train")) == len(EXPECTED[name, "train"].files) - 1
        return
    what = ("image", "label")[which]
    with pytest.raises(DataError, match=f"1 of .* samples have no {what} file: .*{re.escape(str(files[which]))}"):
        data.dataset("train")


# What is wrong with a file


def to_16_bits(path: Path) -> None:
    Image.fromarray(raw(path).astype(np.uint16)).save(path)


def to_colours(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def to_jpeg(path: Path) -> None:
    Image.open(path).convert("L").save(path, "JPEG")


def to_other_size(path: Path) -> None:
    Image.open(path).resize((9, 5), Image.Resampling.NEAREST).save(path)


def to_value_254(path: Path) -> None:
    values = raw(path)
    values[3, 4] = 254
    Image.fromarray(values).save(path)


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# place (0 photograph, 1 label), damage, what the message says
DAMAGES: dict[str, tuple[int, Callable[[Path], object], str]] = {
    "empty photograph": (0, lambda p: p.write_bytes(b""), r"empty \(0 bytes\)"),
    "empty label": (1, lambda p: p.write_bytes(b""), r"empty \(0 bytes\)"),
    "half a photograph": (0, halve, "damaged or truncated"),
    "half a label": (1, halve, "damaged or truncated"),
    "a web page": (0, lambda p: p.write_text("<html>404</html>"), "no picture; PNG, JPEG"),
    "colours": (1, to_colours, r"colour picture.*data\.masks=rgb"),
    "16 bits": (1, to_16_bits, "16-bit picture.*8 bits"),
    "jpeg": (1, to_jpeg, "JPEG has lost its exact values"),
    "another size": (1, to_other_size, "label is 9 x 5 pixels"),
    "no class": (1, to_value_254, r"value 254; the data set has the classes .* and ignores"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_named_with_what_is_wrong(name: str, damage: str, copy: Copy, built: Built) -> None:
    root, (which, spoil, message) = copy(name), DAMAGES[damage]
    files = EXPECTED[name, "val"].files[1]
    spoil(root / str(files[which]))
    dataset = moved(built[name], root).dataset("val")
    dataset[0, 0]
    with pytest.raises(DataError, match=message) as caught:
        dataset[0, 1]
    # A value is found when the label is mapped; the photograph's name tells which.
    assert str(root / str(files[0 if damage == "no class" else which])) in str(caught.value)


@pytest.mark.parametrize("name", ["camvid", "ade20k", "coco_stuff"])
def test_a_photograph_in_two_formats_is_refused(name: str, copy: Copy, built: Built) -> None:
    root = copy(name)
    image = root / EXPECTED[name, "train"].files[0][0]
    other = image.with_suffix(".jpg" if image.suffix == ".png" else ".png")
    Image.open(image).convert("RGB").save(other)
    with pytest.raises(DataError, match=f"'{re.escape(image.stem)}' in two formats"):
        moved(built[name], root).dataset("train")


# Links


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["camvid", "ade20k", "coco_stuff", "cityscapes"])
def test_links_that_lead_around_do_not_hang(name: str, copy: Copy, built: Built) -> None:
    root = copy(name)
    images = (root / EXPECTED[name, "train"].files[0][0]).parent
    (images / "around").symlink_to(images, target_is_directory=True)
    (images / "above").symlink_to(root, target_is_directory=True)
    (images / "itself").symlink_to(images / "itself")
    (images / "itself.png").symlink_to(images / "itself.png")
    assert found_in(moved(built[name], root)) in (len(EXPECTED[name, "train"].files), "refused")


def found_in(data: SegmentationDataModule) -> int | str:
    try:
        return len(data.dataset("train"))
    except DataError:
        return "refused"


def test_folders_may_be_links(copy: Copy, built: Built, tmp_path: Path) -> None:
    root = copy("cityscapes")
    for kind in ("leftImg8bit", "gtFine"):
        for folder in ("val/lindau", "train"):
            elsewhere = tmp_path / "elsewhere" / kind / folder
            elsewhere.parent.mkdir(parents=True, exist_ok=True)
            (root / kind / folder).rename(elsewhere)
            (root / kind / folder).symlink_to(elsewhere, target_is_directory=True)
    for split in ("train", "val"):
        data = moved(built["cityscapes"], root)
        expected = [root / image for image, _ in EXPECTED["cityscapes", split].files]
        assert [pair.image for pair in data.make_source(split).pairs] == expected
        data.dataset(split)[0, 0]


def test_a_link_whose_file_is_gone_is_named(copy: Copy, built: Built) -> None:
    root = copy("camvid")
    gone = root / EXPECTED["camvid", "train"].files[2][0]
    gone.unlink()
    gone.symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=re.escape(gone.name)):
        moved(built["camvid"], root).dataset("train")


# List files


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["2007_000032", "2007_000039", "2007_000032"], r"line 3: '2007_000032' stands in line 1 already"),
        (["", "2007_000032", "", "nowhere"], r"no image file: .*nowhere\.jpg"),
        (["2007_000032", "../../etc/passwd"], r"line 2: '\.\./\.\./etc/passwd' leads out of the data set"),
        (["/etc/passwd"], r"line 1: '/etc/passwd' leads out of the data set"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(lines: list[str], message: str, copy: Copy, built: Built) -> None:
    root = copy("voc")
    layouts.write_list(root / "ImageSets" / "Segmentation" / "train.txt", lines)
    with pytest.raises(DataError, match=message):
        moved(built["voc"], root).dataset("train")


@pytest.mark.parametrize("ending", ["\r\n", "\n", "  \n"])
def test_line_endings_of_a_list_change_nothing(ending: str, copy: Copy, built: Built) -> None:
    root = copy("voc")
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes("".join(f"{name}{ending}" for name in LISTS["train"]).encode())
    assert [p.image.stem for p in moved(built["voc"], root).make_source("train").pairs] == LISTS["train"]


def test_the_mark_of_an_editor_at_the_begin_of_a_list_changes_nothing(copy: Copy, built: Built) -> None:
    root = copy("voc")
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [p.image.stem for p in moved(built["voc"], root).make_source("train").pairs] == LISTS["train"]
