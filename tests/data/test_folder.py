"""data=folder: patterns, list files, kinds of masks, and one clear message for what can't be used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from idd_seg.config.messages import explain
from idd_seg.data.folder import Folder
from idd_seg.errors import ConfigError, DataError
from tests.data import layouts
from tests.data.layouts import OWN_COLOURS, OWN_NAMES, OWN_VOID, make_data, own, raw, save, write_list
from tests.data.sources import settings

MASKS = ("indices", "palette", "rgb")
IMAGES = {"train": "images/train/**/*", "val": "images/val/**/*"}
LABELS = {"train": "masks/train/**/*.png", "val": "masks/val/**/*.png"}


def folder(root: Path, masks: str = "indices", **changes: Any) -> Folder:
    """Build without YAML, which takes longer than all else."""
    images, labels = ({**kind, **changes.pop(key, {})} for key, kind in (("images", IMAGES), ("labels", LABELS)))
    values = {"label_values": {10: 0, 20: 1, 30: 2, 40: 3}, "ignored": [0]} if masks == "indices" else {}
    common = {**settings(4), "palette": list(OWN_COLOURS.values()), "masks": masks, **values, **changes}
    return Folder(str(root), images, labels, **{"ignored_colours": [OWN_VOID], **common})


def names(data: Folder, split: str = "train") -> list[tuple[str, str | None]]:
    """Return the files of a split, relative to the root."""
    return [
        (pair.image.relative_to(data.root).as_posix(), pair.label and pair.label.relative_to(data.root).as_posix())
        for pair in data.make_source(split).pairs
    ]


def truth_of(image: Path) -> Any:
    parts = list(image.with_suffix(".png").parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = "truth"
    return raw(Path(*parts))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return own(tmp_path)


# What is found and read


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("masks", MASKS)
def test_the_yaml_reads_a_folder_as_it_is(tmp_path: Path, masks: str, nested: bool) -> None:
    root = own(tmp_path, seed=3, masks=masks, nested=nested)
    data = make_data("folder", root, f"data.masks={masks}", "data.augment=null")
    assert data.class_names == list(OWN_COLOURS)
    assert [list(colour) for colour in data.palette] == list(OWN_COLOURS.values())
    for split, found in OWN_NAMES.items():
        dataset = data.dataset(split)
        assert len(dataset) == len(found)
        for i in range(len(dataset)):
            sample = dataset[0, i]
            assert np.array_equal(sample.label.numpy(), truth_of(Path(sample.name)))
            with Image.open(sample.name) as picture:
                difference = np.abs(np.array(picture).astype(int) - sample.image.permute(1, 2, 0).numpy())
            assert difference.max() <= (6 if sample.name.endswith(".jpg") else 0)
    assert data.labelled("val")


def test_a_root_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, OmegaConfBaseException)) as caught:
        layouts.instantiate.make_data(layouts.compose("data=folder"))
    assert "data.root" in explain(caught.value, "train", [])


def test_photographs_go_with_masks_of_the_same_name_in_the_order_of_names(root: Path) -> None:
    expected = [
        ("images/train/0001 street.png", "masks/train/0001 street.png"),
        ("images/train/0002 Größe 街.jpg", "masks/train/0002 Größe 街.png"),
        ("images/train/0003.frame.tail.png", "masks/train/0003.frame.tail.png"),
        ("images/train/plain.png", "masks/train/plain.png"),
    ]
    assert names(folder(root)) == expected


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("images/train/**/*", 4),
        ("images/**/*", 6),
        ("images/**", 6),
        ("**/train/*.png", 3),
        ("images/train/*.jpg", 1),
        ("images/t*/000?*", 3),
        ("images/train/[!0]*", 1),
        ("images/*/v*", 2),
        ("images/train/plain.png", 1),
    ],
)
def test_a_pattern_finds_what_it_says(root: Path, pattern: str, number: int) -> None:
    if pattern.startswith("**"):
        for other in ("masks", "truth"):
            shutil.move(root / other, root.parent / other)
    data = folder(root, images={"predict": pattern})
    found = names(data, "predict")
    assert len(found) == number
    assert found == sorted(found)
    assert all(label is None for _, label in found)
    assert {image for image, _ in found} == {
        path.relative_to(root).as_posix()
        for path in root.glob(pattern if not pattern.endswith("**") else f"{pattern}/*")
        if path.is_file()
    }


def test_folders_below_are_paired_by_their_paths(tmp_path: Path) -> None:
    root = own(tmp_path, nested=True)
    expected = [f"city {city}/a.b/{i}" for city in (0, 1) for i in (0, 1)]
    found = names(folder(root))
    assert [image.rsplit(".", 1)[0] for image, _ in found] == [f"images/train/{name}" for name in expected]
    assert [label for _, label in found] == [f"masks/train/{name}.png" for name in expected]


def test_capital_endings_are_found(root: Path) -> None:
    for path in sorted((root / "images" / "train").iterdir()):
        path.rename(path.with_suffix(path.suffix.upper()))
    assert len(names(folder(root))) == 4


@pytest.mark.parametrize("separator", ["\t", ",", " ", ", ", "  "])
def test_a_list_of_photographs_and_masks(root: Path, separator: str) -> None:
    lines = [
        f"images/train/plain.png{separator}masks/val/v.2.png",
        f"images/val/v.2.jpg{separator}masks/train/plain.png",
    ]
    write_list(root / "lists" / "some.txt", lines)
    assert names(folder(root, images={"train": "lists/some.txt"})) == [
        ("images/train/plain.png", "masks/val/v.2.png"),
        ("images/val/v.2.jpg", "masks/train/plain.png"),
    ]


def test_lists_may_add_training_photographs(root: Path) -> None:
    write_list(root / "pseudo" / "list.txt", ["images/val/v.2.jpg masks/val/v.2.png"])
    plain, more = folder(root), folder(root, also_train=["pseudo/list.txt"])
    assert names(more) == [*names(plain), ("images/val/v.2.jpg", "masks/val/v.2.png")]
    assert names(more, "val") == names(plain, "val")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("pseudo", "", r"data\.also_train=pseudo: give list files"),
        ("more.txt", "images/val/v.2.jpg", r"more\.txt, line 1: data\.also_train needs a mask behind each photograph"),
        ("more.txt", "images/val/v.2.jpg masks/val/gone.png", "gone.png"),
        ("gone.txt", None, "gone.txt"),
    ],
)
def test_added_lists_name_masks(root: Path, name: str, line: str | None, message: str) -> None:
    if line is not None:
        write_list(root / name, [line])
    with pytest.raises((ConfigError, DataError), match=message):
        names(folder(root, also_train=[name]))


@pytest.mark.parametrize("separator", ["\t", ","])
def test_names_in_a_list_may_have_spaces_and_any_letters(root: Path, separator: str) -> None:
    lines = [
        f"images/train/{n}.{e}{separator}masks/train/{n}.png"
        for n, e in (("0001 street", "png"), ("0002 Größe 街", "jpg"))
    ]
    write_list(root / "some.lst", lines)
    assert [label for _, label in names(folder(root, images={"train": "some.lst"}))] == [
        "masks/train/0001 street.png",
        "masks/train/0002 Größe 街.png",
    ]


def test_a_list_of_photographs_alone_takes_masks_of_the_same_name(root: Path) -> None:
    order = ["images/train/plain.png", "images/train/0001 street.png", "images/train/0003.frame.tail.png"]
    write_list(root / "some.txt", order)
    data = folder(root, images={"train": "some.txt", "predict": "some.txt"})
    assert names(data) == [(image, image.replace("images", "masks")) for image in order]
    assert names(data, "predict") == [(image, None) for image in order]


def test_predict_needs_no_masks_even_if_the_list_names_them(root: Path) -> None:
    write_list(root / "some.txt", ["images/train/plain.png masks/train/plain.png"])
    shutil.rmtree(root / "masks")
    data = folder(root, images={"predict": "some.txt"})
    assert not data.labelled("predict")
    assert (data.dataset("predict")[0, 0].label == 255).all()


# Splits


def test_predict_needs_no_masks(root: Path) -> None:
    shutil.rmtree(root / "masks")
    data = folder(root, images={"predict": "images/**/*"})
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert len(batches) == 6
    assert all((batch.label == 255).all() for batch in batches)
    assert not data.labelled("predict")


@pytest.mark.parametrize("split", ["test", "predict"])
def test_a_split_without_photographs_says_which_option_to_set(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=rf"no photographs for the split '{split}'; set data\.images\.{split}"):
        folder(root).dataset(split)


def test_a_split_without_masks_says_which_option_to_set(root: Path) -> None:
    data = folder(root, images={"test": "images/val/*"})
    with pytest.raises(DataError, match=r"no masks for the split 'test'; set data\.labels\.test"):
        data.dataset("test")


@pytest.mark.parametrize("group", ["images", "labels"])
def test_a_split_that_there_is_not_is_refused(root: Path, group: str) -> None:
    with pytest.raises(ConfigError, match="the splits train, val, test, predict, not 'valid'"):
        folder(root, **{group: {"valid": "images/val/*"}})


# What can't be found or paired


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere'.*data\.root=PATH"):
        folder(tmp_path / "nowhere").dataset("train")


@pytest.mark.parametrize("group", ["images", "labels"])
@pytest.mark.parametrize(
    "pattern", ["nowhere/*", "images/train/*.bmp", "images/[a", "images/train/plain.png/*", "images"]
)
def test_a_pattern_that_finds_nothing_is_named(root: Path, group: str, pattern: str) -> None:
    with pytest.raises(
        DataError, match=rf"data\.{group}\.train={re.escape(pattern)} finds no \.png, \.jpg, \.jpeg, \.webp"
    ):
        folder(root, **{group: {"train": pattern}}).dataset("train")


@pytest.mark.parametrize("group", ["images", "labels"])
@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "images/../../*", "**/../*"])
def test_a_pattern_that_leads_out_is_refused(root: Path, group: str, pattern: str) -> None:
    with pytest.raises(DataError, match=rf"data\.{group}\.train={re.escape(pattern)} leads out of data\.root"):
        folder(root, **{group: {"train": pattern}}).dataset("train")


def test_a_photograph_without_mask_is_named(root: Path) -> None:
    (root / "masks" / "train" / "plain.png").unlink()
    message = r"1 of 4 photographs have no mask of the same name in data\.labels\.train=.*: .*images/train/plain\.png"
    with pytest.raises(DataError, match=message):
        folder(root).dataset("train")


def test_a_mask_without_photograph_is_no_mistake(root: Path) -> None:
    (root / "images" / "train" / "plain.png").unlink()
    assert len(folder(root).dataset("train")) == 3


def test_two_masks_of_one_name_are_named(root: Path) -> None:
    mask = root / "masks" / "train" / "plain.png"
    shutil.copy(mask, mask.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"two masks are called '.*plain'.*remove one of them"):
        folder(root, labels={"train": "masks/train/*"}).dataset("train")


def test_names_that_are_not_unique_are_never_paired_by_chance(tmp_path: Path) -> None:
    root = own(tmp_path, nested=True)
    shutil.rmtree(root / "masks" / "train" / "city 1")
    with pytest.raises(DataError, match=r"2 of 4 photographs have no mask.*city 1"):
        folder(root).dataset("train")


# List files


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the list file is empty"),
        (["images/train/plain.png", "images/train/nowhere.png"], r"(no mask of the same name|no image file).*nowhere"),
        (["images/train/plain.png"] * 2, r"line 2: .*images/train/plain\.png' stands in line 1 already"),
        (["", "images/train/plain.png", "../x.png"], r"line 3: '\.\./x\.png' leads out of the data set"),
        (["images/train/plain.png", "/etc/x.png"], r"line 2: '/etc/x\.png' leads out of the data set"),
        (
            ["images/train/plain.png masks/train/plain.png", "images/val/v 1.png"],
            "some lines name a photograph and a mask",
        ),
        (["images/train/plain.png masks/train/nowhere.png"], r"1 of 1 samples have no label file: .*nowhere\.png"),
        (["images/train/nowhere.png masks/train/plain.png"], r"1 of 1 samples have no image file: .*nowhere\.png"),
    ],
)
def test_a_wrong_list_is_named(root: Path, lines: list[str], message: str) -> None:
    path = write_list(root / "some.txt", lines)
    with pytest.raises(DataError, match=message) as caught:
        folder(root, images={"train": "some.txt"}).dataset("train")
    assert str(path) in str(caught.value) or "have no" in str(caught.value)


@pytest.mark.parametrize("separator", ["\t", ",", " "])
@pytest.mark.parametrize("outside", ["../outside.png", "/OUTSIDE/outside.png"])
def test_a_second_column_that_leads_out_is_refused(root: Path, separator: str, outside: str) -> None:
    shutil.copy(root / "masks" / "train" / "plain.png", root.parent / "outside.png")
    outside = outside.replace("/OUTSIDE", str(root.parent))
    write_list(root / "some.txt", ["", f"images/train/plain.png{separator}{outside}"])
    with pytest.raises(DataError, match=r"line 2: .* leads out of the data set"):
        folder(root, images={"train": "some.txt"}).dataset("train")


@pytest.mark.parametrize(
    "second", ["images/train/plain.png\tmasks/train/plain.png", "images/train/plain.png masks/val/v.2.png"]
)
def test_a_photograph_that_stands_in_two_lines_is_named(root: Path, second: str) -> None:
    write_list(root / "some.txt", ["images/train/plain.png masks/train/plain.png", second])
    with pytest.raises(DataError, match=r"line 2: .*images/train/plain\.png.* line 1 already"):
        folder(root, images={"train": "some.txt"}).dataset("train")


@pytest.mark.parametrize("name", ["missing.txt", "images/train/missing.lst"])
def test_a_missing_list_is_named(root: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"no list file '{re.escape(str(root / name))}'"):
        folder(root, images={"train": name}).dataset("train")


# Links


@pytest.mark.timeout(20)
def test_links_that_lead_around_do_not_hang(root: Path) -> None:
    train = root / "images" / "train"
    (train / "around").symlink_to(train, target_is_directory=True)
    (train / "above").symlink_to(root / "images", target_is_directory=True)
    (train / "itself").symlink_to(train / "itself")
    (train / "one").symlink_to(train / "two", target_is_directory=True)
    (train / "two").symlink_to(train / "one", target_is_directory=True)
    data = folder(root, images={"predict": "images/train/**/*"})
    found = [Path(image).resolve().name for image, _ in names(data, "predict")]
    assert len(found) == len(set(found))  # a file that is reached twice counts once


def test_a_folder_may_be_a_link(root: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (root / kind / "train").rename(tmp_path / kind)
        (root / kind / "train").symlink_to(tmp_path / kind, target_is_directory=True)
    data = folder(root)
    assert len(data.dataset("train")) == 4
    assert [name for name, _ in names(data)] == [
        f"images/train/{p}" for p in sorted(p.name for p in (tmp_path / "images").iterdir())
    ]


def test_masks_may_be_links_to_one_file(root: Path) -> None:
    # Stores that keep equal files once leave links in their places; masks without any object are equal.
    train = root / "masks" / "train"
    (train / "plain.png").unlink()
    (train / "plain.png").symlink_to("0001 street.png")
    assert names(folder(root))[3] == ("images/train/plain.png", "masks/train/plain.png")


def test_a_link_whose_file_is_gone_is_named(root: Path) -> None:
    gone = root / "images" / "train" / "plain.png"
    gone.unlink()
    gone.symlink_to(root / "nowhere.png")
    with pytest.raises(DataError, match=r"plain\.png"):
        folder(root).dataset("train")


# Masks


def spoil(path: Path, change: Callable[[Image.Image], Image.Image], kind: str = "PNG") -> None:
    with Image.open(path) as picture:
        made = change(picture.copy())
    made.save(path, kind)


BAD_MASKS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "indices",
        lambda p: spoil(p, lambda m: m.convert("RGB")),
        r"colour picture \('RGB'\).*data=folder data\.masks=rgb",
    ),
    ("indices", lambda p: spoil(p, lambda m: m.convert("RGBA")), r"colour picture \('RGBA'\).*data\.masks=rgb"),
    ("indices", lambda p: spoil(p, lambda m: m.convert("LA")), "'LA' picture"),
    ("indices", lambda p: save(np.zeros((13, 17), np.uint16), p), "16-bit picture.*8-bit PNG"),
    (
        "indices",
        lambda p: save(np.full((13, 17), 41, np.uint8), p),
        r"value 41; .*classes 10, 20, 30, 40 and ignores 0, 255",
    ),
    ("indices", lambda p: spoil(p, lambda m: m, "JPEG"), "stored as JPEG"),
    ("palette", lambda p: spoil(p, lambda m: m.convert("RGB")), r"'RGB' picture.*use data\.masks=rgb"),
    ("palette", lambda p: spoil(p, lambda m: m.convert("L")), r"'L' picture.*use data\.masks=indices"),
    ("palette", lambda p: save(np.zeros((13, 17), np.uint16), p), "16-bit picture"),
    ("rgb", lambda p: spoil(p, lambda m: m.convert("L")), r"'L' picture, without colours; use data\.masks=indices"),
    ("rgb", lambda p: spoil(p, lambda m: m, "JPEG"), "stored as JPEG"),
    ("rgb", lambda p: save(Image.new("RGB", (17, 13), (9, 8, 7)), p), r"colour \[9, 8, 7\], which is of no class"),
    (
        "rgb",
        lambda p: save(Image.new("RGB", (9, 5), (70, 70, 70)), p),
        r"label is 9 x 5 pixels, its image .* is 17 x 13",
    ),
    ("rgb", lambda p: p.write_bytes(b""), r"empty \(0 bytes\)"),
    ("palette", lambda p: p.write_bytes(p.read_bytes()[:60]), "damaged or truncated"),
]


@pytest.mark.parametrize(("masks", "damage", "message"), BAD_MASKS, ids=[f"{m}: {t}" for m, _, t in BAD_MASKS])
def test_a_mask_that_cannot_be_used_is_named(
    tmp_path: Path, masks: str, damage: Callable[[Path], object], message: str
) -> None:
    root = own(tmp_path, masks=masks)
    damage(root / "masks" / "train" / "0001 street.png")
    with pytest.raises(DataError, match=message) as caught:
        folder(root, masks).dataset("train")[0, 0]
    assert "0001 street.png" in str(caught.value)


def test_rgb_reads_palette_masks_and_masks_with_alpha_too(tmp_path: Path) -> None:
    root = own(tmp_path, masks="palette")
    spoil(root / "masks" / "val" / "v 1.png", lambda m: m.convert("RGBA"))
    data = folder(root, "rgb", augment=None)
    for i in range(2):
        sample = data.dataset("val")[0, i]
        assert np.array_equal(sample.label.numpy(), truth_of(Path(sample.name)))


@pytest.mark.parametrize("masks", ["colours", ""])
def test_another_kind_of_masks_is_refused(root: Path, masks: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.masks must be one of indices, palette, rgb, got '{masks}'"):
        folder(root, masks)
