"""The picture of a study class by class."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from idd_seg.studies.classes import draw_classes
from idd_seg.studies.jobs import Result


def run(**iou: float | None) -> Result:
    return Result(0.5, iou, 1.0, 1, None, None)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pictures say, in place of their files."""
    said: list[str] = []

    def saved(figure: Figure, path: Path, **options: object) -> None:
        (axes,) = figure.axes
        said.extend([text.get_text() for text in (*axes.texts, *axes.get_yticklabels(), axes.xaxis.label)])

    monkeypatch.setattr(Figure, "savefig", saved)
    return said


def test_means_are_of_the_seeds_that_both_have(texts: list[str], tmp_path: Path) -> None:
    twin = {0: run(road=0.5, sky=None), 1: run(road=0.7, sky=0.2), 2: run(road=0.9, sky=0.4)}
    student = {0: run(road=0.6, sky=0.9), 1: run(road=0.7, sky=0.1)}
    draw_classes({"twin": twin, "kd": student}, "twin", tmp_path / "classes.png")
    # road: 0.65 against 0.60; sky: of those seeds the twin has one value, 0.2, and the student a mean of 0.5.
    assert texts == ["+5.0", "+30.0", "road  70.0", "sky  30.0", "IoU of 'twin' in %, and points more or less"]


def test_a_method_without_a_twin_of_its_seed_is_left_out(texts: list[str], tmp_path: Path) -> None:
    draw_classes({"twin": {0: run(road=0.5)}, "kd": {1: run(road=0.6)}}, "twin", tmp_path / "classes.png")
    assert texts == []


def test_of_many_classes_those_that_change_most(texts: list[str], tmp_path: Path) -> None:
    twin, student = (run(**{f"c{i}": 0.5 + share * i for i in range(150)}) for share in (0.0, 0.001))
    draw_classes({"twin": {0: twin}, "kd": {0: student}}, "twin", tmp_path / "classes.png")
    assert texts[-1].endswith("the 24 of 150 classes that change most")
    assert "c149  50.0" in texts
    assert "c125  50.0" not in texts
    assert "c126  50.0" in texts
