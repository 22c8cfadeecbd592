"""A student that is scored on another root: the class list there says what its labels stand for, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.config import restore
from idd_seg.config.instantiate import plain
from idd_seg.data.pipeline.class_list import read_class_list
from idd_seg.data.pipeline.other_classes import with_own_classes
from idd_seg.errors import DataError
from tests.data.layouts import compose

PLAIN = """
classes:
  - {name: grass, colour: [1, 1, 1]}
  - {name: road, colour: [2, 2, 2]}
  - {name: car, colour: [3, 3, 3]}
"""
REORDERED = """
classes:
  - {name: car, value: 0, colour: [3, 3, 3]}
  - {name: grass, value: 1, colour: [1, 1, 1]}
  - {name: road, values: [2, 9], colour: [2, 2, 7]}
ignore: [77, [9, 9, 9]]
"""


def write(root: Path, text: str | None) -> Path:
    root.mkdir(exist_ok=True)
    if text is not None:
        (root / "classes.yaml").write_text(text)
    return root


def trained(place: Path, **changes: Any) -> dict[str, Any]:
    """Return the options that the checkpoint of a training holds."""
    found = read_class_list(place / "classes.yaml")
    return {
        "name": "folder",
        "root": str(place),
        "classes": f"{place}/classes.yaml",
        "class_names": found.names,
        "palette": found.palette,
        "label_values": found.label_values,
        "ignored": found.ignored,
        "ignored_colours": found.ignored_colours,
        "masks": "indices",
        **changes,
    }


def test_another_order_is_mapped_by_names(tmp_path: Path) -> None:
    options = trained(write(tmp_path / "a", PLAIN))
    other = write(tmp_path / "b", REORDERED)
    found, said = with_own_classes(options, str(other))
    assert found["class_names"] == ["grass", "road", "car"]
    assert found["label_values"] == {0: 2, 1: 0, 2: 1, 9: 1}
    assert found["ignored"] == [77]
    assert found["classes"] == str(other / "classes.yaml")
    assert "has another order" in (said or "")


@pytest.mark.parametrize("masks", ["rgb", "palette"])
def test_colours_are_those_of_the_other_list(tmp_path: Path, masks: str) -> None:
    options = trained(write(tmp_path / "a", PLAIN), masks=masks)
    found, _ = with_own_classes(options, str(write(tmp_path / "b", REORDERED)))
    assert found["palette"] == [[1, 1, 1], [2, 2, 7], [3, 3, 3]]
    assert found["ignored_colours"] == [[9, 9, 9]]


def test_an_equal_list_says_nothing(tmp_path: Path) -> None:
    options = trained(write(tmp_path / "a", PLAIN))
    other = write(tmp_path / "b", PLAIN)
    assert with_own_classes(options, str(other)) == ({**options, "classes": f"{other}/classes.yaml"}, None)
    assert with_own_classes(options, None) == (options, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN.replace("car", "lorry"), r"has 'lorry' and lacks 'car'.*\(grass, road, car\)"),
        (PLAIN + "  - tree\n", "has 'tree', against the 3 classes"),
        ("classes: [grass, road]", "lacks 'car'"),
        ("classes: [grass, 7]", "class 1 must be a name"),
    ],
)
def test_other_classes_are_refused_with_the_difference(tmp_path: Path, text: str, words: str) -> None:
    options = trained(write(tmp_path / "a", PLAIN))
    other = write(tmp_path / "b", text)
    with pytest.raises(DataError, match=words) as caught:
        with_own_classes(options, str(other))
    assert str(other / "classes.yaml") in str(caught.value)


def test_without_a_list_the_values_of_the_training_are_taken_and_that_is_said(tmp_path: Path) -> None:
    options = trained(write(tmp_path / "a", PLAIN))
    found, said = with_own_classes(options, str(write(tmp_path / "b", None)))
    assert found["label_values"] == options["label_values"]
    assert "there is no class list" in (said or "")


def test_a_list_that_lies_elsewhere_stays(tmp_path: Path) -> None:
    options = trained(write(tmp_path / "lists", PLAIN), root=str(tmp_path / "a"))
    found, said = with_own_classes(options, str(write(tmp_path / "b", REORDERED)))
    assert (found["label_values"], said) == (options["label_values"], None)


@pytest.mark.parametrize("text", [REORDERED, PLAIN.replace("car", "lorry"), "classes: [a"])
def test_a_list_that_was_changed_after_the_training_is_told(tmp_path: Path, text: str) -> None:
    options = trained(write(tmp_path / "a", PLAIN))
    write(tmp_path / "a", text)
    found, said = with_own_classes(options, None)
    assert found["label_values"] == options["label_values"]
    assert "of the training are taken" in (said or "")


def test_values_that_were_options_of_the_training_stay(tmp_path: Path) -> None:
    values = {0: 0, 1: 1, 255: 2}
    options = trained(write(tmp_path / "a", PLAIN), label_values=values)
    found, said = with_own_classes(options, str(write(tmp_path / "b", PLAIN)))
    assert (found["label_values"], said) == (values, None)
    found, said = with_own_classes(options, str(write(tmp_path / "b", REORDERED)))
    assert found["label_values"] == values
    assert "says other ones (ignored, label_values)" in (said or "")


def test_data_without_a_class_list_is_left_alone(tmp_path: Path) -> None:
    assert with_own_classes({"name": "voc", "root": "x"}, str(tmp_path)) == ({"name": "voc", "root": "x"}, None)


class Stored:
    """A checkpoint as far as a data set is read from it."""

    path = Path("last.ckpt")

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def config(self, group: str) -> dict[str, Any]:
        return self.options


def test_evaluate_root_reads_the_same_labels_of_both_roots(tmp_path: Path) -> None:
    """`plain` and `reordered` hold the same picture; the values in their masks differ as their lists do."""
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) % 3
    for name, text, values in (("plain", PLAIN, [0, 1, 2]), ("reordered", REORDERED, [1, 2, 0])):
        root = write(tmp_path / name, text)
        for split in ("train", "val"):
            for kind, picture in (
                ("images", np.zeros((6, 8, 3), np.uint8)),
                ("masks", np.array(values, np.uint8)[ids]),
            ):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(root / kind / split / "a.png")
    options = plain(compose("data=folder", f"data.root={tmp_path}/plain").data)
    saved: Any = Stored(options)
    for root in (None, str(tmp_path / "plain")):
        assert (restore.data_from(saved, root).dataset("val")[0, 0].label.numpy() == ids).all()
    with pytest.warns(UserWarning, match=r"data=folder: classes by their names.*reordered/classes\.yaml"):
        data = restore.data_from(saved, str(tmp_path / "reordered"))
    assert (data.dataset("val")[0, 0].label.numpy() == ids).all()
    assert data.class_names == ["grass", "road", "car"]
