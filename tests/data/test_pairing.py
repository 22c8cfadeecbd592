"""data=folder as users' folders are: what never counts, which mask goes with which photograph, lists of any program."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.data.ade20k import ADE20K
from idd_seg.data.camvid import CamVid
from idd_seg.data.folder import Folder
from idd_seg.data.pipeline.files import walk
from idd_seg.data.pipeline.label_check import in_both
from idd_seg.data.pipeline.labels import with_table
from idd_seg.errors import ConfigError, DataError
from idd_seg.prediction.inputs import find_jobs
from tests.data.sources import photograph, settings

NAMES = ("p0", "p1", "p10")
MASK = Image.fromarray((np.arange(192, dtype=np.uint8).reshape(12, 16)) % 3)


def put(path: Path, kind: str = "photo") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (photograph(0) if kind == "photo" else MASK).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in NAMES:
            put(tmp_path / "images" / split / f"{name}.jpg")
            put(tmp_path / "masks" / split / f"{name}.png", "mask")
    return tmp_path


def folder(root: Path, **changes: Any) -> Folder:
    images = {split: f"images/{split}/**/*" for split in ("train", "val")} | changes.pop("images", {})
    labels = {split: f"masks/{split}/**/*.png" for split in ("train", "val")} | changes.pop("labels", {})
    return Folder(str(root), images, labels, **settings(3), **changes)


def found(data: Folder, split: str = "train") -> dict[str, str | None]:
    pairs = data.make_source(split).pairs
    names = {
        pair.image.relative_to(data.root).as_posix(): pair.label and pair.label.relative_to(data.root).as_posix()
        for pair in pairs
    }
    assert len(names) == len(pairs)
    return names


PLAIN = {f"images/train/{name}.jpg": f"masks/train/{name}.png" for name in NAMES}


# What never counts

JUNK = (
    *(".ipynb_checkpoints/p0-checkpoint.jpg", "._p0.jpg", ".hidden.png", "__MACOSX/images/._p0.jpg", "__MACOSX/p9.jpg"),
    *("@eaDir/p0.jpg/THUMB.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", ".thumbnails/p0.png", "$RECYCLE.BIN/p.png"),
)


@pytest.mark.parametrize("junk", JUNK)
def test_what_systems_leave_never_counts(root: Path, tmp_path: Path, junk: str) -> None:
    for place in (root / "images" / "train", root / "masks" / "train"):
        path = place / junk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7")
    assert found(folder(root)) == PLAIN
    assert [path.stem for path in walk(root / "images" / "train")] == list(NAMES)
    for text in (f"{root}/images/train", f"{root}/images/train/**/*"):
        assert [job.source.stem for job in find_jobs(text, tmp_path / "out")] == list(NAMES)


def test_the_data_sets_with_owners_leave_it_out_too(tmp_path: Path) -> None:
    layouts: list[tuple[type[CamVid] | type[ADE20K], str, str]] = [
        (CamVid, "train", "trainannot"),
        (ADE20K, "images/training", "annotations/training"),
    ]
    for kind, images, labels in layouts:
        root = tmp_path / kind.__name__
        put(root / images / "a.jpg")
        put(root / labels / "a.PNG", "mask")
        put(root / images / "Stra\u00dfe \u00e9.jpg")
        put(root / labels / unicodedata.normalize("NFD", "Stra\u00dfe \u00e9.png"), "mask")
        for junk in JUNK:
            path = root / images / junk
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        source = kind(root=str(root), **settings(3)).make_source("train")
        assert len(source) == 2
        assert all(source[i].label is not None for i in range(2))


def test_a_hidden_folder_above_the_root_is_no_matter(root: Path, tmp_path: Path) -> None:
    hidden = tmp_path / ".cache" / "data"
    hidden.mkdir(parents=True)
    for kind in ("images", "masks"):
        (root / kind).rename(hidden / kind)
    assert found(folder(hidden)) == PLAIN


def test_what_a_pattern_of_predict_names_itself_counts(tmp_path: Path) -> None:
    hidden = put(tmp_path / ".thumbnails" / "a.JPG")
    text = f"{tmp_path}/.thumbnails/*.jpg"
    assert [job.source for job in find_jobs(text, tmp_path / "out")] == [hidden]


# Endings and letters


@pytest.mark.parametrize("pattern", ["images/train/*.jpg", "images/train/*.JPG", "images/train/*.[jJ]pg"])
def test_endings_match_in_any_case(root: Path, pattern: str) -> None:
    for number, path in enumerate(sorted((root / "images" / "train").iterdir())):
        path.rename(path.with_suffix((".JPG", ".Jpg", ".jpg")[number]))
    for path in (root / "masks" / "train").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert list(found(folder(root, images={"train": pattern})).values()) == [f"masks/train/{n}.PNG" for n in NAMES]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("listed", [False, True])
def test_names_pair_in_both_forms_of_unicode(root: Path, forms: tuple[str, str], listed: bool) -> None:
    name = "Straße é ö"
    image = put(root / "images" / "train" / f"{unicodedata.normalize(forms[0], name)}.jpg")
    put(root / "masks" / "train" / f"{unicodedata.normalize(forms[1], name)}.png", "mask")
    images = {}
    if listed:
        text = f"images/train/{unicodedata.normalize(forms[1], name)}.jpg"
        (root / "some.txt").write_text(text, encoding="utf-8")
        images = {"train": "some.txt"}
    else:
        images = {"train": unicodedata.normalize(forms[1], "images/train/*é*.jpg")}
    source = folder(root, images=images).make_source("train")
    assert [pair.image for pair in source.pairs] == [image]
    assert source[0].label is not None


# Which mask


def test_masks_beside_photographs_are_no_photographs(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in NAMES:
            put(tmp_path / split / f"{name}.jpg")
            put(tmp_path / split / f"{name}.png", "mask")
    wanted = {f"train/{name}.jpg": f"train/{name}.png" for name in NAMES}
    for image, label in (("*", "*.png"), ("*.jpg", "*"), ("*.jpg", "*.png")):
        images, labels = ({s: f"{s}/{p}" for s in ("train", "val")} for p in (image, label))
        assert found(folder(tmp_path, images=images, labels=labels)) == wanted
    with pytest.raises(DataError, match=r"find the same 6 files.*'train/\*\.jpg'.*'train/\*\.png'"):
        folder(tmp_path, images={"train": "train/*"}, labels={"train": "train/*"}).make_source("train")
    data = folder(tmp_path, images={"predict": "**/*"}, labels={"train": "train/*.png", "val": "val/*.png"})
    assert len(found(data, "predict")) == 6


@pytest.mark.parametrize("suffix", ["_mask", "_labelIds", "_label", "_gt", "-seg", ".mask", " (mask)"])
def test_a_suffix_of_the_masks_is_found_and_said(root: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in list((root / "masks" / "train").iterdir()):
        path.rename(path.with_name(f"{path.stem}{suffix}.png"))
    wanted = [f"masks/train/{name}{suffix}.png" for name in NAMES]
    data = folder(root)
    assert list(found(data).values()) == wanted
    found(data)
    assert capsys.readouterr().out.count(f"data.label_suffix={suffix}") == 1
    assert list(found(folder(root, label_suffix=suffix)).values()) == wanted
    with pytest.raises(DataError, match=r"3 of 3 photographs have no mask of the same name.*data\.label_suffix"):
        folder(root, label_suffix="").make_source("train")


def test_several_suffixes_are_refused_until_one_is_chosen(root: Path) -> None:
    for path in list((root / "masks" / "train").iterdir()):
        path.rename(path.with_name(f"{path.stem}_labelIds.png"))
        put(path.with_name(f"{path.stem}_color.png"))
    with pytest.raises(DataError, match=r"several masks.*_color, _labelIds.*data\.label_suffix=_color"):
        folder(root).make_source("train")
    data = folder(root, label_suffix="_labelIds")
    assert list(found(data).values()) == [f"masks/train/{name}_labelIds.png" for name in NAMES]


@pytest.mark.parametrize("ends", [("_image", "_mask"), ("_leftImg8bit", "_gtFine_labelIds"), ("_rgb", "")])
def test_words_of_the_photographs_give_way_to_those_of_the_masks(
    root: Path, ends: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, end, ending in (("images", ends[0], "jpg"), ("masks", ends[1], "png")):
        for path in list((root / kind / "train").iterdir()):
            path.rename(path.with_name(f"{path.stem}{end}.{ending}"))
    wanted = {f"images/train/{name}{ends[0]}.jpg": f"masks/train/{name}{ends[1]}.png" for name in NAMES}
    assert found(folder(root)) == wanted
    assert f"with '{ends[1]}' in place of '{ends[0]}' (data.image_suffix={ends[0]} data.label_suffix=" in (
        capsys.readouterr().out
    )
    assert found(folder(root, image_suffix=ends[0], label_suffix=ends[1])) == wanted
    assert found(folder(root, image_suffix=ends[0])) == wanted
    with pytest.raises(DataError, match=r"have no mask of the same name.*data\.image_suffix"):
        folder(root, image_suffix="").make_source("train")


def test_numbers_never_give_way(root: Path) -> None:
    """p_1 and q_1 are not the photographs of p_2 and q_2."""
    for kind, ending, number in (("images", "jpg", 1), ("masks", "png", 2)):
        for path in list((root / kind / "train").iterdir()):
            path.rename(path.with_name(f"{path.stem}_{number}.{ending}"))
    with pytest.raises(DataError, match="have no mask of the same name"):
        folder(root).make_source("train")


def test_the_same_name_goes_before_a_suffix(root: Path) -> None:
    for name in NAMES:
        put(root / "masks" / "train" / f"{name}_instances.png", "mask")
    assert found(folder(root)) == PLAIN


def test_a_suffix_that_only_some_have_is_no_suffix(root: Path) -> None:
    mask = root / "masks" / "train" / "p0.png"
    mask.rename(mask.with_name("p0_mask.png"))
    with pytest.raises(DataError, match=r"1 of 3 photographs have no mask of the same name"):
        folder(root).make_source("train")


def test_runs_of_before_resume_with_the_new_option() -> None:
    assert with_table({"a": 1, "label_suffix": "auto", "image_suffix": "auto"}) == {"a": 1}
    assert with_table({"a": 1, "label_suffix": "_mask"}) == {"a": 1, "label_suffix": "_mask"}


# Lists

LINES = [f"images/train/{name}.jpg masks/train/{name}.png" for name in NAMES]


def quoted(line: str) -> str:
    return ",".join(f'"{word}"' for word in line.split())


READ: dict[str, Callable[[Path], str | bytes]] = {
    "semicolons": lambda _: "\n".join(line.replace(" ", ";") for line in LINES),
    "quotes": lambda _: "\n".join(map(quoted, LINES)),
    "single quotes": lambda _: "\n".join(quoted(line).replace('"', "'") for line in LINES),
    "crlf": lambda _: "\r\n".join(LINES),
    "cr": lambda _: "\r".join(LINES),
    "bom": lambda _: b"\xef\xbb\xbf" + "\n".join(LINES).encode(),
    "utf-16": lambda _: "\r\n".join(LINES).encode("utf-16"),
    "comments": lambda _: "# mine\n" + "\n".join(LINES) + "\n  # end\n",
    "a header": lambda _: "image,mask\n" + "\n".join(line.replace(" ", ",") for line in LINES),
    "a header in tabs": lambda _: "file\tlabel\n" + "\n".join(line.replace(" ", "\t") for line in LINES),
    "./": lambda _: "\n".join("./" + line.replace(" ", " ./") for line in LINES),
    "absolute": lambda root: "\n".join(f"{root}/{line.replace(' ', f' {root}/')}" for line in LINES),
    "backslashes": lambda _: "\n".join(line.replace("/", "\\") for line in LINES),
    "photographs alone, with a header": lambda _: "image\n" + "\n".join(line.split()[0] for line in LINES),
    "capital endings of lists": lambda _: "\n".join(LINES),
}


@pytest.mark.parametrize("kind", READ)
def test_a_list_is_read_as_programs_write_it(root: Path, kind: str) -> None:
    content = READ[kind](root)
    name = "some.CSV" if "capital" in kind else "some.csv" if "," in str(content) else "some.txt"
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(folder(root, images={"train": name})) == PLAIN


REFUSED: dict[str, tuple[str, str]] = {
    "no endings": ("p0\np1", r"line 1: 'p0' does not end as a picture"),
    "three columns": (f"{LINES[0]} 0.7\n{LINES[1]} 0.7", r"line 1: 3 columns \('0\.7' in the last\)"),
    "three columns of a table": (LINES[0].replace(" ", ",") + ",0.7", r"line 1: 3 columns"),
    "a mask first": (" ".join(LINES[0].split()[::-1]), r"line 1: '.*masks/train/p0\.png' looks like the mask"),
    "twice by a dot": (f"{LINES[0]}\n./{LINES[0]}", r"line 2: .*p0\.jpg' stands in line 1 already"),
    "one name, then two": (f"images/train/p0.jpg\n{LINES[1]}", r"line 2: some lines name .* this one has 2 names"),
    "a missing photograph": (f"{LINES[0]}\nimages/train/no.jpg masks/train/p1.png", r"line 2: 1 of 2 samples have no"),
    "a drive": ("C:\\data\\p0.jpg", r"line 1: .* leads out of the data set"),
    "absolute, elsewhere": ("/etc/p0.jpg", r"line 1: '/etc/p0\.jpg' leads out of the data set"),
    "comments alone": ("# nothing\n", "names no photograph"),
    "zeros": ("images\0/p0.jpg", "line 1: .*no text"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_list_that_can_not_be_read_names_its_line(root: Path, kind: str) -> None:
    content, message = REFUSED[kind]
    (root / "some.txt").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        folder(root, images={"train": "some.txt"}).make_source("train")
    assert str(root / "some.txt") in str(caught.value)


def test_a_header_that_puts_the_mask_first_is_refused(root: Path) -> None:
    (root / "some.csv").write_text("mask,image\nmasks/train/p0.png,images/train/p0.jpg\n")
    with pytest.raises(DataError, match="looks like the mask, and stands before the photograph"):
        folder(root, images={"train": "some.csv"}).make_source("train")


def test_a_photograph_that_is_listed_again_by_a_link_is_named(root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "images" / "train" / "p0.jpg")
    (root / "some.txt").write_text(f"{LINES[0]}\nlink.jpg masks/train/p0.png\n")
    with pytest.raises(DataError, match=r"line 2: .*link\.jpg' stands in line 1 already, as .*p0\.jpg"):
        folder(root, images={"train": "some.txt"}).make_source("train")


def test_two_photographs_with_one_mask_are_told(root: Path) -> None:
    (root / "some.txt").write_text(f"{LINES[0]}\nimages/train/p1.jpg masks/train/p0.png\n")
    with pytest.warns(UserWarning, match=r"line 2: .*p1\.jpg' has the same mask as .*p0\.jpg"):
        folder(root, images={"train": "some.txt"}).make_source("train")


@pytest.mark.parametrize("link", [False, True])
def test_a_photograph_in_train_and_val_is_told(root: Path, link: bool) -> None:
    data = folder(root)
    data.setup("fit")
    assert in_both(data) is None
    line = LINES[1]
    if link:
        (root / "again.jpg").symlink_to(root / "images" / "train" / "p1.jpg")
        line = "again.jpg masks/train/p1.png"
    (root / "val.txt").write_text(line)
    data = folder(root, images={"val": "val.txt"})
    data.setup("fit")
    assert "1 photograph is in 'train' and in 'val'" in (in_both(data) or "")
    assert ("again.jpg" if link else "p1.jpg") in (in_both(data) or "")


def test_colours_that_two_classes_share_are_looked_for_in_the_class_list(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"stands for two classes.*the colours stand in '/a/classes\.yaml'"):
        Folder(str(root), {}, {}, classes="/a/classes.yaml", **settings(2, palette=[[1, 1, 1]] * 2, masks="rgb"))


def test_values_of_no_class_point_at_the_class_list_all_at_once(root: Path) -> None:
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16) % 7).save(root / "masks" / "train" / "p0.png")
    data = folder(root, classes="/a/classes.yaml", augment=None)
    with pytest.raises(DataError, match=r"values 3 to 6; .*add it to the class list '/a/classes\.yaml'") as caught:
        data.dataset("val").labels(data.make_source("train").label(0), "p0")
    assert "data.label_values" not in str(caught.value)
