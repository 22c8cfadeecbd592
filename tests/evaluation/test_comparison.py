"""What `compare` says of its table."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from idd_seg.evaluation.comparison import Portrait, lead_line, twin_of
from idd_seg.metrics.confusion import Scores


def portraits(**mious: float) -> dict[str, Portrait]:
    parts = {"confusion": None, "parameters": 1, "images_per_s": 1.0, "distances": None, "position": SimpleNamespace()}
    return {name: Portrait(Scores(miou, [miou], miou), **parts) for name, miou in mious.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("teacher", "said", "advised"),
    [
        (0.734, "teacher: 10.5 points of mIoU above 'twin'", False),
        (0.650, "teacher: 2.1 points of mIoU above 'twin'", False),
        (0.649, "teacher: 2.0 points of mIoU above 'twin'", False),
        (0.6486, "teacher: 2.0 points of mIoU above 'twin'", False),
        (0.645, "teacher: 1.6 points of mIoU above 'twin'; with less than 2", True),
        (0.599, "teacher: 3.0 points of mIoU below 'twin'; with less than 2", True),
    ],
)
def test_a_teacher_that_is_hardly_better_is_said(teacher: float, said: str, advised: bool) -> None:
    line = lead_line(portraits(teacher=teacher, twin=0.629, student=0.655), "twin")
    assert line.startswith(said)
    assert ("take a better teacher" in line) == advised


def test_a_twin_is_as_large_as_the_student() -> None:
    three = portraits(big=0.7, twin=0.6, student=0.65)
    three["big"] = replace(three["big"], parameters=2)
    assert twin_of(three, ["big", "twin"], "student") == "twin"
    assert twin_of(three, ["big"], "student") is None
    assert twin_of(three, ["student"], "student") is None
