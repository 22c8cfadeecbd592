"""Photographs without labels: found, mixed into the batches, and looked at before a training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idd_seg.data.augment import Augmentation
from idd_seg.data.camvid import CamVid
from idd_seg.data.pipeline.datamodule import SegmentationDataModule
from idd_seg.data.pipeline.dataset import Key
from idd_seg.data.pipeline.fingerprint import differences
from idd_seg.data.pipeline.labels import with_table
from idd_seg.data.pipeline.mixing import MixedSampler, pictures_of
from idd_seg.data.unlabelled.checks import look_at_unlabelled
from idd_seg.data.unlabelled.find import find_unlabelled
from idd_seg.data.unlabelled.names import Names
from idd_seg.errors import ConfigError, DataError
from idd_seg.types import Batch
from tests.data import layouts
from tests.data.layouts import photograph, save
from tests.data.sources import settings

CROP = Augmentation(crop=(24, 32), scale=(0.5, 2.0), flip=0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CamVid's folders with four labelled pictures, and seven photographs without labels of all formats."""
    root = layouts.camvid(tmp_path)
    rng = np.random.default_rng(1)
    for i, ending in enumerate(["jpg", "JPG", "png", "webp", "tif", "jpeg", "png"]):
        save(photograph(rng, (20 + i, 30)), root / "more" / f"{i % 2}" / f"{i}.{ending}")
    return root


def camvid(root: Path, **changes: Any) -> CamVid:
    options = {"ignored": [11], "augment": CROP, "batch_size": 4, "unlabelled": "more", **changes}
    return CamVid(root=str(root), **settings(11, **options))


def batches(data: SegmentationDataModule, part: tuple[int, int] | None = None) -> list[Batch]:
    return list(data.loader("train", shuffle=True, part=part))


def equal(a: Batch, b: Batch) -> bool:
    tensors = [(a.image, b.image), (a.label, b.label), (a.box, b.box)]
    return a.names == b.names and a.labelled == b.labelled and all(torch.equal(x, y) for x, y in tensors)


def names(root: Path, text: str) -> list[str]:
    source = find_unlabelled(text, root)
    return [Path(source.name(i)).name for i in range(len(source))]


# Finding


def test_a_folder_a_pattern_a_list_and_a_file(root: Path) -> None:
    assert sorted(names(root, "more")) == ["0.jpg", "1.JPG", "2.png", "3.webp", "4.tif", "5.jpeg", "6.png"]
    assert names(root, "more/**/*.jpg") == ["0.jpg", "1.JPG"]
    assert names(root, "more/1/*") == ["1.JPG", "3.webp", "5.jpeg"]
    assert names(root, str(root / "more" / "*" / "*.png")) == ["2.png", "6.png"]
    (root / "list.txt").write_text(f'# a comment\n\nmore/0/0.jpg\r\n"more/1/3.webp"\n{root}/more/0/4.tif\n')
    assert names(root, "list.txt") == ["0.jpg", "3.webp", "4.tif"]
    assert names(root, "more/0/0.jpg") == ["0.jpg"]


def test_paths_of_a_list_are_kept_relative_so_that_the_data_set_may_move(root: Path) -> None:
    (root / "list.csv").write_text(f"{root}/more/0/0.jpg\nmore/0/2.png\n")
    assert list(find_unlabelled("list.csv", root).names) == ["more/0/0.jpg", "more/0/2.png"]


def test_names_come_back_as_they_are() -> None:
    given = ["a.jpg", "Größe 街.png", "", "x/y.webp"]
    assert list(Names(given)) == given
    assert len(Names(given)) == 4
    assert Names(["ab", "c"]).digest() != Names(["a", "bc"]).digest()
    with pytest.raises(IndexError):
        Names(given)[4]


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        ("nothing/*.jpg", None, "data.unlabelled=nothing/*.jpg finds no .png"),
        ("trainannot/*.jpg", None, "finds no .png"),
        ("nowhere", None, "there is no file or folder"),
        ("list.txt", None, "there is no list file"),
        ("list.txt", "", "names no photograph"),
        ("list.txt", "more/0/0.jpg\nnotes.doc\n", "line 2: 'notes.doc' does not end as a picture does"),
        ("list.txt", "more/0/0.jpg\nmore/0/9.jpg\nmore/0/8.jpg\n", "2 of 3 photographs are not there"),
    ],
)
def test_what_finds_nothing_is_told(text: str, content: str | None, message: str, root: Path) -> None:
    if content is not None:
        (root / "list.txt").write_text(content)
    with pytest.raises(DataError) as caught:
        look_at_unlabelled(camvid(root, unlabelled=text))
    assert message in str(caught.value)


def text_file(path: Path) -> None:
    path.write_text("these are my holiday pictures")


def truncated(path: Path) -> None:
    save(photograph(np.random.default_rng(0), (60, 80)), path)
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize("damage", [text_file, truncated, Path.touch])
def test_a_picture_that_cant_be_read_is_told_before_the_training(damage: Callable[[Path], None], root: Path) -> None:
    damage(root / "more" / "0" / "bad.jpg")
    with pytest.raises(DataError, match=r"^data\.unlabelled: .*bad\.jpg: "):
        look_at_unlabelled(camvid(root))


def test_a_text_beside_the_pictures_is_none_of_them(root: Path) -> None:
    text_file(root / "more" / "0" / "README.txt")
    assert look_at_unlabelled(camvid(root)) is None


def test_masks_are_refused_and_photographs_to_judge_on_are_told(root: Path) -> None:
    with pytest.raises(DataError, match="4 files that are masks of the data set"):
        look_at_unlabelled(camvid(root, unlabelled="trainannot"))
    assert "finds 3 photographs that the training is judged on" in str(
        look_at_unlabelled(camvid(root, unlabelled="val"))
    )
    assert look_at_unlabelled(camvid(root, unlabelled="train")) is None


def test_sizes_that_fit_into_no_batch_are_told(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"pictures of one batch have one size; set data\.augment\.crop"):
        look_at_unlabelled(camvid(root, augment=None))


@pytest.mark.parametrize("share", [-0.1, 1.5, "half", True, None])
def test_a_share_is_a_number_from_0_to_1(share: Any, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled_share must be a number from 0 to 1"):
        camvid(root, unlabelled_share=share)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 2}, "data.teacher_labels.confidence must be a number from 0 to 1, got '2'"),
        ({"use": "some"}, "data.teacher_labels.use must be one of unlabelled, all, none, got 'some'"),
        ({"threshold": 0.9}, "there is no option 'data.teacher_labels.threshold'; there are use, confidence"),
    ],
)
def test_options_of_teacher_labels_are_checked(options: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        camvid(root, teacher_labels=options)
    assert str(caught.value) == message


# Mixing


@pytest.mark.parametrize(("share", "number"), [(0, 0), (0.5, 8), (0.25, 4), (0.53, 8), (1, 16), (0.03125, 1)])
def test_a_share_is_rounded_to_pictures(share: float, number: int) -> None:
    assert pictures_of(share, 16) == number


@pytest.mark.parametrize("share", [0.02, 0.98])
def test_a_share_of_no_picture_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled_share=0\.\d+ of data\.batch_size=16"):
        pictures_of(share, 16)


def keys(rank: int = 0, world: int = 1, first: int = 0, batches: int = 9, batch_size: int = 4) -> list[Key]:
    sampler = MixedSampler(11, 17, batch_size, batch_size // 2, 3, rank=rank, world=world, batches=batches, first=first)
    return list(sampler)


@pytest.mark.parametrize("first", [0, 1, 4, 5, 8, 9])
def test_a_training_can_begin_anywhere(first: int) -> None:
    assert keys(first=first) == keys()[4 * first :]


def test_each_kind_goes_through_epochs_of_its_own() -> None:
    found = keys(batches=10)
    labelled = [key for key in found if key[1] < 11]
    without = [key for key in found if key[1] >= 11]
    assert [key[1] < 11 for key in found] == [True, True, False, False] * 10
    assert [epoch for epoch, _ in labelled] == [0] * 10 + [1] * 10
    assert [epoch for epoch, _ in without] == [0] * 16 + [1] * 4
    assert len(set(labelled)) == len(set(without)) == 20
    assert {index for _, index in without[:16]} < set(range(11, 28))


def test_two_processes_take_what_one_takes() -> None:
    one = _cut(keys(), 4)
    two = [_cut(keys(rank, 2, batch_size=2), 2) for rank in (0, 1)]
    assert [a | b for a, b in zip(*two, strict=True)] == one


def _cut(found: list[Key], size: int) -> list[set[Key]]:
    return [set(found[i : i + size]) for i in range(0, len(found), size)]


def test_too_few_pictures_of_a_kind_are_told() -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled finds 3 pictures without labels, and each batch takes 4"):
        MixedSampler(11, 3, 4, 2, 0, world=2)
    with pytest.raises(ConfigError, match="there are 3 pictures with labels, and each batch takes 6"):
        MixedSampler(3, 11, 8, 2, 0)


def test_workers_change_no_bit(root: Path) -> None:
    alone = batches(camvid(root, num_workers=0), (1, 6))
    helped = batches(camvid(root, num_workers=2), (1, 6))
    assert len(alone) == 5
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("cache", ["disk"])
def test_a_cache_changes_no_bit(cache: str, root: Path, tmp_path: Path) -> None:
    plain = batches(camvid(root), (0, 4))
    for _ in range(2):
        kept = batches(camvid(root, cache=cache, cache_dir=str(tmp_path / "decoded")), (0, 4))
        assert all(equal(a, b) for a, b in zip(plain, kept, strict=True))


def test_a_share_of_0_is_as_no_option_to_the_bit(root: Path) -> None:
    without, none = camvid(root, unlabelled=None), camvid(root, unlabelled="nowhere", unlabelled_share=0)
    for a, b in zip(batches(without, (0, 4)), batches(none, (0, 4)), strict=True):
        assert equal(a, b)
        assert b.labelled is None
    assert none.read_splits == ["train", "val"]
    assert look_at_unlabelled(none) is None


def test_pictures_without_labels_stand_last_and_are_marked(root: Path) -> None:
    for batch in batches(camvid(root), (0, 3)):
        assert batch.labelled == 2
        assert ["/more/" in name for name in batch.names] == [False, False, True, True]
        # The photograph is marked with 0, and what lies beyond it is ignored, by the box.
        for label, box in zip(batch.label[2:], batch.box[2:], strict=True):
            left, top, right, bottom = box.tolist()
            padded = max(left, right) > 1 + 1e-6 or bottom > 1 + 1e-6
            assert set(label.unique().tolist()) == ({0, 255} if padded else {0})
            assert top >= 0


def test_a_batch_of_pictures_without_labels_alone(root: Path) -> None:
    data = camvid(root, unlabelled_share=1)
    assert [batch.labelled for batch in batches(data)] == [0]


def test_they_are_shown_upright(root: Path) -> None:
    picture = photograph(np.random.default_rng(0), (20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture, root / "turned" / "a.jpg", exif=exif)
    assert find_unlabelled("turned", root)[0].image.shape == (30, 20, 3)


def test_crops_of_one_class_are_not_asked_of_them(root: Path) -> None:
    strict = Augmentation(crop=(24, 32), scale=(0.5, 2.0), flip=0.5, cat_max_ratio=0.01)
    loose, tight = camvid(root, unlabelled_share=1), camvid(root, unlabelled_share=1, augment=strict)
    assert all(equal(a, b) for a, b in zip(batches(loose), batches(tight), strict=True))


def test_views_number_both_kinds_through(root: Path) -> None:
    data = camvid(root, frozen_epochs=2)
    assert data.shown().views == 2 * (4 + 7)
    found = [view for batch in batches(data, (0, 4)) for view in batch.views]
    assert len(found) == len(set(found)) == 16


# Resuming


def test_other_photographs_are_told_wherever_they_lie(root: Path, tmp_path: Path) -> None:
    before = camvid(root).fingerprint("unlabelled")
    moved = root.rename(tmp_path / "elsewhere")
    assert differences(before, camvid(moved).fingerprint("unlabelled")) == ""
    (moved / "more" / "0" / "0.jpg").write_bytes(b"other")
    assert "1 changed (0/0.jpg)" in differences(before, camvid(moved).fingerprint("unlabelled"))
    (moved / "more" / "0" / "0.jpg").unlink()
    assert "6 photographs" in differences(before, camvid(moved).fingerprint("unlabelled"))


def test_runs_of_before_have_the_same_options() -> None:
    old = {"name": "x"}
    neutral = {"unlabelled": None, "unlabelled_share": 0.5, "teacher_labels": {"use": "unlabelled", "confidence": 0.9}}
    assert with_table({**old, **neutral}) == old
    assert with_table({**old, **neutral, "unlabelled": "more", "unlabelled_share": 0}) == old
    chosen = {**old, **neutral, "unlabelled": "more"}
    assert with_table(chosen) == chosen
    everywhere = {"teacher_labels": {"use": "all", "confidence": 0.5}}
    assert with_table({**old, **neutral, **everywhere}) == {**old, **everywhere}
