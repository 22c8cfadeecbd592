"""The classes, values and colours of the data sets are their owners'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from idd_seg.checkpoints.reader import Saved
from idd_seg.config.groups import config_dir
from idd_seg.config.restore import data_from
from idd_seg.data.cityscapes import IDS
from idd_seg.data.pipeline.labels import LabelMap, with_table
from idd_seg.errors import DataError
from idd_seg.ops.colours import bit_colour
from tests.data.layouts import compose

NUMBERS = {"camvid": 11, "voc": 21, "cityscapes": 19, "ade20k": 150, "coco_stuff": 171}
# The values that the owner's label files may hold, beside 255.
VALUES = {
    "camvid": range(12),
    "voc": range(21),
    "cityscapes": range(34),
    "ade20k": range(151),
    "coco_stuff": range(182),
}


def load(name: str) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(config_dir() / "data" / f"{name}.yaml"), resolve=False)
    assert isinstance(found, dict)
    return with_table({str(key): value for key, value in found.items()})


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_every_class_has_a_name_and_a_colour_of_its_own(name: str, number: int) -> None:
    data = load(name)
    assert data["num_classes"] == len(data["class_names"]) == len(data["palette"]) == number
    assert len(set(data["class_names"])) == number
    assert all(isinstance(text, str) and text == text.strip() and text for text in data["class_names"])
    # The owner of ADE20K gives one colour to road and skyscraper.
    assert len({tuple(colour) for colour in data["palette"]}) == number - (number == 150)
    assert all(len(colour) == 3 and all(0 <= channel <= 255 for channel in colour) for colour in data["palette"])


@pytest.mark.parametrize("name", list(NUMBERS))
def test_every_value_of_the_files_is_a_class_or_ignored(name: str) -> None:
    data = load(name)
    number, mapping = data["num_classes"], data.get("label_values")
    mapping = {i: i for i in range(number)} if mapping is None else mapping
    ignored = data.get("ignored", [])
    assert sorted(mapping.values()) == list(range(number))
    assert sorted([*mapping, *ignored]) == list(VALUES[name])
    labels = LabelMap(number, 255, ignored, mapping)
    every = np.array([[*VALUES[name], 255]], np.uint8)
    assert labels(every, "x").tolist() == [[mapping.get(value, 255) for value in every[0].tolist()]]
    with pytest.raises(DataError):
        labels(np.full((1, 1), VALUES[name].stop, np.uint8), "x")


def check(name: str, *known: tuple[int, int, str, list[int] | None]) -> None:
    """Compare (class id, value in the files, name, colour) with the list."""
    data = load(name)
    values = {class_id: value for value, class_id in data["label_values"].items()}
    for class_id, value, text, colour in known:
        assert values[class_id] == value
        assert data["class_names"][class_id] == text
        if colour is not None:
            assert data["palette"][class_id] == colour


def test_cityscapes() -> None:
    check(
        "cityscapes",
        (0, 7, "road", [128, 64, 128]),
        (1, 8, "sidewalk", [244, 35, 232]),
        (2, 11, "building", [70, 70, 70]),
        (5, 17, "pole", [153, 153, 153]),
        (6, 19, "traffic light", [250, 170, 30]),
        (9, 22, "terrain", [152, 251, 152]),
        (10, 23, "sky", [70, 130, 180]),
        (11, 24, "person", [220, 20, 60]),
        (12, 25, "rider", [255, 0, 0]),
        (13, 26, "car", [0, 0, 142]),
        (15, 28, "bus", [0, 60, 100]),
        (16, 31, "train", [0, 80, 100]),
        (18, 33, "bicycle", [119, 11, 32]),
    )
    assert list(load("cityscapes")["label_values"]) == list(IDS)


def test_ade20k() -> None:
    check(
        "ade20k",
        (0, 1, "wall", [120, 120, 120]),
        (1, 2, "building", [180, 120, 120]),
        (2, 3, "sky", [6, 230, 230]),
        (3, 4, "floor", [80, 50, 50]),
        (4, 5, "tree", [4, 200, 3]),
        (6, 7, "road", [140, 140, 140]),
        (12, 13, "person", [150, 5, 61]),
        (20, 21, "car", [0, 102, 200]),
        (48, 49, "skyscraper", [140, 140, 140]),
        (89, 90, "television", None),
        (127, 128, "bicycle", [255, 245, 0]),
        (148, 149, "clock", [102, 255, 0]),
        (149, 150, "flag", [92, 0, 255]),
    )


def test_coco_stuff() -> None:
    check(
        "coco_stuff",
        (0, 0, "person", None),
        (10, 10, "fire hydrant", None),
        (11, 12, "stop sign", None),  # the owner's 12, street sign, is not used
        (79, 89, "toothbrush", None),
        (80, 91, "banner", None),  # the owner's 91, hair brush, is not used
        (170, 181, "wood", None),
    )
    data = load("coco_stuff")
    unused = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]
    assert data["ignored"] == [owner - 1 for owner in unused]
    assert sum(value < 91 for value in data["label_values"]) == 80
    assert data["palette"] == [bit_colour(i + 1) for i in range(171)]


def test_voc_s_palette_is_made_of_bits() -> None:
    assert load("voc")["palette"] == [bit_colour(i) for i in range(21)]


def test_lists_are_in_the_owner_s_order() -> None:
    stuff = load("coco_stuff")["class_names"][80:]
    assert stuff == sorted(stuff)  # the owner's stuff is in the order of the alphabet
    assert list(load("coco_stuff")["label_values"]) == sorted(load("coco_stuff")["label_values"])
    assert list(load("ade20k")["label_values"].items()) == [(i + 1, i) for i in range(150)]


def test_ade20k_reads_labels_as_with_the_table_that_older_checkpoints_hold() -> None:
    """A checkpoint holds the options of its data set: `label_values` before there was `reduce_zero_label`."""
    cfg = compose("data=ade20k", "data.root=/nowhere")
    now = OmegaConf.to_container(cfg.data, resolve=True)
    assert now["reduce_zero_label"] is True
    before = {key: value for key, value in now.items() if key != "reduce_zero_label"}
    before |= {"ignored": [0], "label_values": {value: value - 1 for value in range(1, 151)}}
    old, new = (
        data_from(Saved(Path("a.ckpt"), {}, {"config": {"data": node}}, "0"), None).labels for node in (before, now)
    )
    assert np.array_equal(old.table, new.table)
    assert (old.ignored, old.known) == (new.ignored, new.known)
