"""A class list from the masks themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idd_seg.data.class_proposal import class_list_of, propose, unnamed
from idd_seg.data.pipeline.class_list import ClassList, read_class_list
from idd_seg.errors import DataError
from tests.helpers import clean_error, run_here


def masks(folder: Path, *pictures: Image.Image) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return paths


def grey(*values: int) -> Image.Image:
    return Image.fromarray(np.array([values], np.uint8))


def listed(folder: Path, paths: list[Path]) -> ClassList:
    text = class_list_of(propose(paths))
    (folder / "classes.yaml").write_text(text)
    return read_class_list(folder / "classes.yaml")


def test_values_become_classes_and_255_takes_no_part(tmp_path: Path) -> None:
    found = listed(tmp_path, masks(tmp_path / "m", grey(0, 7, 7, 255), grey(7, 7, 26, 26)))
    assert found.names == ["class 0", "class 7", "class 26"]
    assert found.label_values == {0: 0, 7: 1, 26: 2}
    assert found.ignored == [255]
    text = (tmp_path / "classes.yaml").read_text()
    assert "# 50 % of the pixels, in 2 masks" in text
    assert "ignore: [255] # 12 % of the pixels" in text


def test_masks_of_0_and_255_have_two_classes(tmp_path: Path) -> None:
    found = listed(tmp_path, masks(tmp_path / "m", grey(0, 255)))
    assert (found.label_values, found.ignored) == ({0: 0, 255: 1}, [])


def test_colours_become_classes(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 1), (128, 64, 128))
    picture.putpixel((0, 0), (0, 0, 142))
    paths = masks(tmp_path / "m", picture)
    assert propose(paths).masks == "rgb"
    found = listed(tmp_path, paths)
    assert found.palette == [[0, 0, 142], [128, 64, 128]]
    assert found.names == ["class 0-0-142", "class 128-64-128"]


def test_the_colours_of_a_palette_are_taken(tmp_path: Path) -> None:
    picture = grey(0, 1, 1).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 0] + [0] * 750)
    assert listed(tmp_path, masks(tmp_path / "m", picture)).palette == [[10, 20, 30], [200, 100, 0]]


def test_smooth_colours_are_no_classes(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    with pytest.raises(
        DataError, match="more than 254 colours by now; masks that were stored as JPEG or scaled smoothly"
    ):
        propose(masks(tmp_path / "m", noise))


@pytest.mark.parametrize(
    ("names", "said"),
    [(["class 0", "class 255"], True), (["class 10-20-30", "class 200-100-0"], True), (["class 0", "road"], False)],
)
def test_names_that_nobody_has_put_in_are_told(names: list[str], said: bool) -> None:
    assert (unnamed(names) is not None) == said


def photographs(root: Path) -> Path:
    for i in range(10):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 90).convert("RGB").save(root / "images" / f"{i}.jpg")
    masks(root / "masks", *(Image.fromarray(np.full((48, 64), 3 * (i % 2), np.uint8)) for i in range(10)))
    return root


def test_a_folder_without_a_word_is_prepared_and_trained(tmp_path: Path) -> None:
    photographs(tmp_path / "own")
    said = clean_error(run_here("train", "data=folder", "data.root=own", "teacher=none", "loss=ce", cwd=tmp_path))
    assert "prepare classes=propose" in said
    prepared = run_here("prepare", "data=folder", "data.root=own", "classes=propose", "workers=1", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    assert "has 2 values of 10 masks; put in the names" in prepared.stdout
    options = [
        "teacher=none",
        "loss=ce",
        "pretrained=false",
        "trainer.max_steps=1",
        "data.batch_size=4",
        "student=small",
    ]
    with pytest.warns(UserWarning, match="the classes are called 'class 0' to 'class 3', as prepare has proposed"):
        trained = run_here("train", "data=folder", "data.root=own", *options, "data.num_workers=0", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "data.augment.crop=[32,64]" in trained.stdout
    assert "2 of 10 photographs are held out" in trained.stdout
    again = clean_error(run_here("prepare", "data=folder", "data.root=own", "classes=propose", cwd=tmp_path))
    assert "is there already" in again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=shapes", "classes=propose"], "classes=propose is for data=folder; data=shapes has its classes"),
        (["data=folder", "data.root=own", "classes=guess"], "classes must be propose or null, got 'guess'"),
        (["data=folder", "data.root=nowhere", "classes=propose"], "nowhere"),
    ],
)
def test_what_can_t_be_proposed_is_told(words: list[str], message: str, tmp_path: Path) -> None:
    photographs(tmp_path / "own")
    assert message in clean_error(run_here("prepare", *words, cwd=tmp_path))
