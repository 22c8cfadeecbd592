"""A folder of somebody's own without further words: layout, split and crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.config.instantiate import make_data
from idd_seg.data.folder import Folder
from idd_seg.data.folder_layout import default_image, default_mask
from idd_seg.data.pipeline.split import held_out
from idd_seg.errors import ConfigError, DataError
from tests.data.layouts import compose
from tests.data.sources import settings


def series(*parts: tuple[str, int]) -> list[str]:
    """Return names of sequences: so many frames of each beginning."""
    return [f"images/{name}{i:04d}.jpg" for name, number in parts for i in range(number)]


def kept(names: Sequence[str], share: float = 0.2) -> list[str]:
    return [Path(names[place]).stem for place in held_out(names, share)]


def test_one_sequence_gives_its_last_pictures() -> None:
    assert kept(series(("frame_", 10))) == ["frame_0008", "frame_0009"]


def test_numbers_count_as_numbers() -> None:
    names = [f"a/{i}.jpg" for i in (10, 9, 2, 1, 100)]
    assert kept(names) == ["100"]


def test_of_a_few_sequences_each_gives_its_last_pictures() -> None:
    assert kept(series(("day_", 5), ("night_", 10))) == ["day_0004", "night_0008", "night_0009"]


def test_of_many_sequences_whole_ones_are_held_out() -> None:
    names = series(*((f"ride{c}_", 6) for c in "abcdefghij"))
    found = kept(names)
    assert len(found) == 12
    beginnings = [name.rsplit("_", 1)[0] for name in found]
    assert sorted(set(beginnings)) == ["ridec", "rideh"]
    assert all(beginnings.count(name) == 6 for name in set(beginnings))


@pytest.mark.parametrize(
    ("folders", "files", "message"),
    [
        (
            ["train", "trainannot"],
            [],
            "in '.*', which has the folders train, trainannot; call them images and masks, or",
        ),
        (
            [],
            [],
            "in '.*', which has no folders; call them images and masks, or say which they are: data.images.train=",
        ),
        (["images", "masks"], [], "data.images.train=images/.* finds no .*: '.*images' holds no file"),
        (
            ["images", "masks"],
            ["images/a.jpg", "masks/a.gif"],
            "data.labels.train=.*masks' holds others, such as a.gif",
        ),
    ],
)
def test_folders_that_are_called_otherwise_are_named(
    tmp_path: Path, folders: list[str], files: list[str], message: str
) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    for name in files:
        (tmp_path / name).touch()
    data = Folder(
        str(tmp_path),
        {split: default_image(split) for split in ("train", "val")},
        {split: default_mask(split) for split in ("train", "val")},
        **settings(2),
    )
    with pytest.raises(DataError, match=message):
        data.make_source("train")


def test_single_pictures_are_held_out_evenly() -> None:
    names = [f"photos/{name}.jpg" for name in "abcdefghij"]
    assert kept(names) == ["c", "h"]


def test_folders_are_sequences_of_their_own() -> None:
    names = [f"{folder}/{i}.jpg" for folder in "abcde" for i in range(4)]
    found = [names[place].split("/")[0] for place in held_out(names, 0.2)]
    assert len(set(found)) == 1
    assert len(found) == 4


def test_the_order_of_the_names_does_not_matter() -> None:
    names = series(*((f"ride{c}_", 3) for c in "abcdefgh"))
    assert sorted(kept(names)) == sorted(kept(names[::-1]))


def write(folder: Path, names: Sequence[str], size: tuple[int, int] = (40, 60)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        shape = size if name.endswith(".png") else (*size, 3)
        Image.fromarray(np.full(shape, number % 2, np.uint8)).save(folder / name)


def own(root: Path, photographs: str, masks: str, number: int = 10, size: tuple[int, int] = (40, 60)) -> None:
    write(root / photographs, [f"{i:02d}.jpg" for i in range(number)], size)
    write(root / masks, [f"{i:02d}.png" for i in range(number)], size)


def folder(root: Path, **changes: Any) -> Folder:
    splits = ("train", "val")
    images, labels = {s: default_image(s) for s in splits}, {s: default_mask(s) for s in splits}
    options = {"images": images, "labels": labels, "val_share": 0.2, "augment": None, **changes}
    return Folder(root=str(root), **{**settings(2), **options})


def names(data: Folder, split: str) -> list[str]:
    source = data.dataset(split).source
    return [Path(source.name(i)).relative_to(data.root).as_posix() for i in range(len(source))]


@pytest.mark.parametrize(
    ("photographs", "masks"), [("images", "masks"), ("photos", "labels"), ("JPEGImages", "SegmentationClass")]
)
def test_one_folder_of_each_is_found_and_split(
    photographs: str, masks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own(tmp_path, photographs, masks)
    data = folder(tmp_path)
    assert names(data, "val") == [f"{photographs}/08.jpg", f"{photographs}/09.jpg"]
    assert names(data, "train") == [f"{photographs}/{i:02d}.jpg" for i in range(8)]
    said = capsys.readouterr().out
    assert f"photographs in '{photographs}', masks in '{masks}'" in said
    assert "2 of 10 photographs are held out to judge on (data.val_share=0.2)" in said


def test_a_layout_by_splits_is_found(tmp_path: Path) -> None:
    own(tmp_path, "train/images", "train/labels", 4)
    own(tmp_path, "valid/images", "valid/labels", 2)
    data = folder(tmp_path)
    assert names(data, "train") == [f"train/images/{i:02d}.jpg" for i in range(4)]
    assert names(data, "val") == ["valid/images/00.jpg", "valid/images/01.jpg"]


def test_the_usual_layout_stays(tmp_path: Path) -> None:
    own(tmp_path, "images/train", "masks/train", 4)
    own(tmp_path, "images/val", "masks/val", 2)
    assert names(folder(tmp_path), "val") == ["images/val/00.jpg", "images/val/01.jpg"]
    assert len(names(folder(tmp_path), "train")) == 4


def test_the_usual_layout_without_val_is_split(tmp_path: Path) -> None:
    own(tmp_path, "images/train", "masks/train")
    assert names(folder(tmp_path), "val") == ["images/train/08.jpg", "images/train/09.jpg"]


def test_patterns_of_ones_own_stay(tmp_path: Path) -> None:
    own(tmp_path, "images", "masks")
    own(tmp_path, "mine", "mine_masks", 5)
    data = folder(tmp_path, images={"train": "mine/*", "val": None}, labels={"train": "mine_masks/*.png", "val": None})
    assert names(data, "train") == [f"mine/{i:02d}.jpg" for i in range(4)]


def test_added_pictures_are_never_held_out(tmp_path: Path) -> None:
    own(tmp_path, "images", "masks")
    write(tmp_path / "more", ["x.jpg"])
    (tmp_path / "more.txt").write_text("more/x.jpg masks/00.png\n")
    data = folder(tmp_path, also_train=["more.txt"])
    assert names(data, "train")[-1] == "more/x.jpg"
    assert len(names(data, "val")) == 2


def test_too_few_pictures_to_split_are_told(tmp_path: Path) -> None:
    own(tmp_path, "images", "masks", 2)
    with pytest.raises(DataError, match=r"data\.val_share=0\.2 of 2 photographs are 0; name those to judge on"):
        folder(tmp_path).dataset("val")


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_lies_between_0_and_1(share: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_share must be a number above 0 and below 1"):
        folder(tmp_path, val_share=share)


@pytest.mark.parametrize(
    ("size", "options", "crop"),
    [
        ((100, 150), [], [96, 128]),
        ((700, 900), [], [512, 512]),
        ((100, 150), ["data.image_scale=2"], [192, 288]),
        ((20, 20), [], [32, 32]),
    ],
)
def test_the_crop_follows_from_the_pictures(
    size: tuple[int, int], options: list[str], crop: list[int], tmp_path: Path
) -> None:
    own(tmp_path, "images", "masks", size=size)
    (tmp_path / "classes.yaml").write_text("classes: [ground, thing]\n")
    cfg = compose("data=folder", f"data.root={tmp_path}", *options)
    assert make_data(cfg).augment.crop == tuple(crop)
    assert cfg.data.augment.crop == crop  # as checkpoints and later looks have it
    chosen = compose("data=folder", f"data.root={tmp_path}", "data.augment.crop=[40,48]")
    assert make_data(chosen).augment.crop == (40, 48)
