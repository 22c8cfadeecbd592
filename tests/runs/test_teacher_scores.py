"""The teacher's column of the last table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from idd_seg.runs.teacher_scores import scores_of


def noted(folder: Path, **changes: Any) -> dict[str, str]:
    found = {"step": 9, "miou": 0.5, "pixel_accuracy": 0.75, "iou": {"road": 0.5, "sky": None}}
    content = {"split": "val", "last": found, "best": {**found, "miou": 0.6}, **changes}
    (folder / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    return {"path": str(folder / "checkpoints" / "last.ckpt")}


def test_the_scores_of_the_checkpoint_that_taught(tmp_path: Path) -> None:
    source = noted(tmp_path)
    last = scores_of(source, "val", ["road", "sky"])
    assert last is not None
    assert (last.miou, last.accuracy, last.iou[0]) == (0.5, 0.75, 0.5)
    assert math.isnan(last.iou[1])
    best = scores_of({"path": source["path"].replace("last", "best")}, "val", ["road", "sky"])
    assert best is not None
    assert best.miou == 0.6


@pytest.mark.parametrize(
    ("split", "names"), [("train", ["road", "sky"]), ("val", ["sky", "road"]), ("val", ["road"]), ("val", ["a", "b"])]
)
def test_other_pictures_or_classes_are_not_compared(tmp_path: Path, split: str, names: list[str]) -> None:
    assert scores_of(noted(tmp_path), split, names) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"split": "val"}', '{"split": "val", "last": {"iou": 3}}', "[" * 99999]
)
def test_a_broken_file_is_no_error(tmp_path: Path, text: str) -> None:
    source = noted(tmp_path)
    (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
    assert scores_of(source, "val", ["road", "sky"]) is None


def test_a_teacher_from_elsewhere_has_no_column(tmp_path: Path) -> None:
    assert scores_of({"path": str(tmp_path / "psp.pth"), "network": "PSPNet"}, "val", ["road", "sky"]) is None
    assert scores_of({}, "val", ["road", "sky"]) is None
