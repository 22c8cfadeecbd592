"""Labels from which nothing, or one class, can be learnt: said before a training, and in the report of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idd_seg.config import preflight
from idd_seg.data.folder import Folder
from idd_seg.data.pipeline.label_check import Finding, sample
from idd_seg.dataset_check.scan import scan
from idd_seg.errors import DataError
from tests.data.sources import OneSource, photograph, settings

SIZE = (12, 16)


def make(root: Path, values: list[list[int]], num_classes: int, **changes: Any) -> Folder:
    """Build a folder whose masks hold these values."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i, held in enumerate(values):
            photograph(i).save(root / "images" / split / f"{i}.jpg")
            Image.fromarray(np.resize(np.array(held, np.uint8), SIZE)).save(root / "masks" / split / f"{i}.png")
    images, labels = ({s: f"{kind}/{s}/*" for s in ("train", "val")} for kind in ("images", "masks"))
    return Folder(str(root), images, labels, **settings(num_classes, augment=None), **changes)


def texts(found: list[Finding]) -> str:
    return " ".join(finding.text for finding in found)


def test_masks_of_0_and_255_are_refused_with_the_remedy(tmp_path: Path) -> None:
    data = make(tmp_path, [[0, 255], [0], [255]], 2)
    for split in ("train", "val"):
        (finding,) = sample(data, split)
        assert finding.fatal
        assert "{0: 0, 255: 1}" in finding.text
        assert "0 and 255 alone" in finding.text
        report = scan(data, split, 1)
        assert any("0 and 255 alone" in problem for problem in report.problems)
    with pytest.raises(DataError, match="0 and 255 alone"):
        preflight._look_at_labels(_set_up(data))
    mended = make(tmp_path, [[0, 255], [0], [255]], 2, label_values={0: 0, 255: 1})
    assert sample(mended, "train") == []
    assert scan(mended, "train", 1).problems == []


def test_with_a_class_list_the_remedy_names_it(tmp_path: Path) -> None:
    data = make(tmp_path, [[0, 255]], 2, label_values={0: 0, 1: 1}, classes="/a/classes.yaml")
    assert "'/a/classes.yaml'" in texts(sample(data, "train"))
    assert "value: 255" in texts(sample(data, "train"))


def test_who_ignores_255_by_name_is_told_and_not_refused(tmp_path: Path) -> None:
    data = make(tmp_path, [[0, 255]], 2, ignored=[255])
    (finding,) = sample(data, "train")
    assert not finding.fatal
    assert "every labelled pixel is 'class 0'" in finding.text


@pytest.mark.parametrize(("values", "name"), [([[0]], "class 0"), ([[2, 255]], "class 2")])
def test_a_split_of_one_class_is_told(tmp_path: Path, values: list[list[int]], name: str) -> None:
    data = make(tmp_path, values, 3)
    with pytest.warns(UserWarning, match=f"every labelled pixel is '{name}'"):
        preflight._look_at_labels(_set_up(data))
    report = scan(data, "val", 1)
    assert report.problems == []
    assert f"every labelled pixel is '{name}'" in report.warnings[0]
    assert report.as_dict(data.class_names)["warnings"] == report.warnings


def test_a_class_that_never_occurs_is_told_of_the_training_split(tmp_path: Path) -> None:
    data = make(tmp_path, [[0, 2]], 3)
    assert "this class does not occur: 'class 1'" in texts(sample(data, "train"))
    assert sample(data, "val") == []
    assert "'class 1'" in scan(data, "train", 1).warnings[0]


def test_a_training_split_without_labels_is_refused_and_a_val_split_told(tmp_path: Path) -> None:
    data = make(tmp_path, [[255]], 3)
    assert [finding.fatal for finding in sample(data, "train") + sample(data, "val")] == [True, False]
    with pytest.raises(DataError, match=r"every pixel takes no part.*The files hold the value 255"):
        preflight._look_at_labels(_set_up(data))
    assert "the mIoU would be no number" in texts(sample(data, "val"))


def test_a_sample_says_that_it_is_one_and_finds_no_rare_class_missing(tmp_path: Path) -> None:
    data = make(tmp_path, [[0], [0], [0], [1], [0], [0]], 2)
    assert "a sample of 3 of 6" in texts(sample(data, "train", 3))
    assert sample(data, "train") == []
    assert sample(make(tmp_path, [[0, 1]] * 6, 5), "train", 3) == []


def test_a_damaged_label_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    data = make(tmp_path, [[0, 1], [0, 1]], 2)
    (tmp_path / "masks" / "train" / "0.png").write_bytes(b"x")
    assert sample(data, "train") == []


def test_generated_scenes_are_not_looked_at() -> None:
    class Refusing:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            raise AssertionError

    assert sample(OneSource(Refusing(), **settings(3)), "val") == []  # type: ignore[arg-type]


def test_what_is_right_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    data = make(tmp_path, [[0, 1, 2, 255]] * 3, 3)
    preflight._look_at_labels(_set_up(data))
    assert not [str(w.message) for w in recwarn if "data=" in str(w.message)]
    assert scan(data, "train", 1).warnings == []


def _set_up(data: Folder) -> Folder:
    data.setup("fit")
    return data
