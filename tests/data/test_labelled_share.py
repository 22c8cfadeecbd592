"""A part of the labels can be hidden, to see what photographs without labels bring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idd_seg.data.camvid import CamVid
from idd_seg.data.pipeline.labels import with_table
from idd_seg.data.unlabelled.checks import look_at_unlabelled
from idd_seg.errors import ConfigError
from tests.data import layouts
from tests.data.sources import Coordinates, OneSource, settings


def module(length: int = 12, **changes: object) -> OneSource:
    return OneSource(
        Coordinates(20, 30, length=length), **{**settings(30), "augment": None, "batch_size": 2, **changes}
    )


def names(data: OneSource, split: str) -> list[int]:
    source = data.dataset(split).source
    return [int(source.name(i).rpartition("/")[2]) for i in range(len(source))]


@pytest.mark.parametrize(
    ("share", "labelled"), [(1.0, [*range(12)]), (0.5, [0, 2, 4, 7, 9, 11]), (0.25, [0, 6, 11]), (0.01, [0])]
)
def test_labels_are_kept_evenly_over_the_split(share: float, labelled: list[int]) -> None:
    assert names(module(labelled_share=share), "train") == labelled


def test_the_rest_is_shown_without_labels() -> None:
    data = module(labelled_share=0.25, unlabelled="rest", unlabelled_share=0.5)
    assert sorted([*names(data, "train"), *names(data, "unlabelled")]) == [*range(12)]
    source = data.dataset("unlabelled").source
    assert source[3].label is None
    for batch in data.loader("train", shuffle=True):
        assert batch.labelled == 1
        # The photograph is marked with 0, as of those in files of their own; labels are columns.
        assert (batch.label[1] == 0).all()
        assert (batch.label[0] == torch.arange(30)).all()


def test_the_held_out_part_is_neither() -> None:
    data = module(held_out=4, labelled_share=1 / 3, unlabelled="rest")
    assert (names(data, "train"), names(data, "val")) == ([0, 4, 8], [9, 10, 11])
    assert names(data, "unlabelled") == [1, 2, 3, 5, 6, 7]


def test_files_are_those_of_the_data_set(tmp_path: Path) -> None:
    root = layouts.camvid(tmp_path)
    options = {"ignored": [11], "augment": None, "batch_size": 2, "labelled_share": 0.5, "unlabelled": "rest"}
    data = CamVid(root=str(root), **settings(11, **options))
    whole = CamVid(root=str(root), **settings(11, ignored=[11], augment=None))
    assert look_at_unlabelled(data) is None
    (first, *_), source = whole.dataset("train").source.files(1), data.dataset("unlabelled").source
    assert source.files(0) == (first, None)
    assert torch.equal(data.dataset("unlabelled")[(0, 0)].image, whole.dataset("train")[(0, 1)].image)
    # Another share are other files: a run does not resume with it.
    assert data.fingerprint("train").digest != whole.fingerprint("train").digest
    assert set(data.fingerprint("unlabelled").items) & set(data.fingerprint("train").items) == set()


@pytest.mark.parametrize("share", [0, -0.5, 1.5, "half", True, None])
def test_a_share_lies_above_0_and_is_at_most_1(share: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.labelled_share"):
        module(labelled_share=share)


def test_there_must_be_a_rest() -> None:
    with pytest.raises(ConfigError, match=r"data\.unlabelled=rest .*data\.labelled_share .* is 1.*\./rest"):
        module(unlabelled="rest")


def test_runs_of_before_have_the_same_options() -> None:
    plain = {"num_classes": 3, "labelled_share": 1.0, "also_train": None}
    assert with_table(plain) == {"num_classes": 3}
    assert with_table({**plain, "labelled_share": 0.5}) == {"num_classes": 3, "labelled_share": 0.5}
