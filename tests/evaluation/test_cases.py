"""The worst and the most changed pictures, their error maps, and what is drawn of them."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idd_seg.evaluation.cases import IMPROVED, WORSENED, WORST, Judged, choose, judged, write
from idd_seg.evaluation.per_image import PerImage
from idd_seg.ops.colours import difference
from idd_seg.plotting import cases, matrices
from idd_seg.plotting.error_maps import COLOURS, LOST, OF_TWO, RIGHT, UNKNOWN, WON, WRONG, coloured, error_map, shares
from idd_seg.plotting.figures import MOST, classes_in, figure, legend, save

PAIR = ("twin", "student")
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB: how people without one kind of cones see.
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colours: Any, matrix: Any) -> np.ndarray[Any, Any]:
    """sRGB colours as they are seen by somebody whose cones the matrix stands for."""
    share = np.array(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(linear @ np.array(matrix).T, 0, 1)
    encoded = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


@pytest.mark.parametrize("kind", ["everybody", *BLIND])
def test_the_colours_of_errors_are_told_apart_by_all(kind: str) -> None:
    found = seen([COLOURS[i] for i in OF_TWO], BLIND.get(kind, np.eye(3)))
    apart = difference(found, found)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 10
    won, lost = list(OF_TWO).index(WON), list(OF_TWO).index(LOST)
    assert apart[won, lost] > 30


def test_pixels_are_won_and_lost() -> None:
    truth = np.array([[0, 1, 2, 1, 255, 3]])
    before, after = np.array([[0, 0, 2, 0, 1, 0]]), np.array([[0, 1, 0, 2, 0, 3]])
    states = error_map(truth, after, 4, before)
    assert states.tolist() == [[RIGHT, WON, LOST, WRONG, UNKNOWN, WON]]
    assert shares(states) == (pytest.approx(2 / 5), pytest.approx(1 / 5))
    alone = error_map(truth, after, 3)  # the fourth class is none
    assert alone.tolist() == [[RIGHT, RIGHT, LOST, LOST, UNKNOWN, UNKNOWN]]
    assert coloured(states)[0, 2].tolist() == list(COLOURS[LOST])


def scored(rows: dict[str, list[list[int]]]) -> PerImage:
    found = PerImage(["a", "b"])
    for name, confusion in rows.items():
        found.add(name, torch.tensor(confusion))
    return found


def test_scores_of_networks_are_put_beside_each_other() -> None:
    none = [[0, 0], [0, 0]]
    first = scored({"x": [[5, 0], [0, 5]], "void": none, "y": [[0, 4], [0, 4]]})
    second = scored({"x": [[5, 0], [5, 0]], "void": none, "y": [[4, 0], [0, 4]]})
    found = judged({"twin": first, "student": second})
    assert [(one.index, one.name) for one in found] == [(0, "x"), (2, "y")]
    assert found[0].miou == {"twin": 1.0, "student": pytest.approx(0.25)}
    assert found[1].change(PAIR) == pytest.approx(0.75)


def pictures(*mious: tuple[float, float]) -> list[Judged]:
    return [Judged(i, f"picture {i}", dict(zip(PAIR, pair, strict=True))) for i, pair in enumerate(mious)]


def test_the_worst_and_what_changed_are_chosen() -> None:
    found = pictures((0.5, 0.7), (0.5, 0.2), (0.4, 0.4), (0.1, 0.9), (0.9, 0.3))
    chosen = choose(found, PAIR, "student", 2)
    places = {key: [one.index for one in many] for key, many in chosen.items()}
    assert places == {WORST: [1, 4], IMPROVED: [3, 0], WORSENED: [4, 1]}
    assert set(choose(found, None, "student", 2)) == {WORST}
    same = choose(pictures((0.5, 0.5), (0.4, 0.4)), PAIR, "student", 2)
    assert (same[IMPROVED], same[WORSENED]) == ([], [])


def test_the_table_begins_with_what_improved_most(tmp_path: Path) -> None:
    path = write(tmp_path / "pictures.csv", pictures((0.5, 0.4), (0.1, 0.9)), PAIR)
    rows = list(csv.DictReader(path.open()))
    assert [row["student - twin"] for row in rows] == ["80.00", "-10.00"]
    assert rows[0]["picture"] == "picture 1"


def test_only_classes_that_are_shown_are_in_a_legend() -> None:
    labels = [np.array([[3, 3], [40, 255]]), np.array([[40, 7]])]
    shown = classes_in(labels, 50)
    assert shown == [3, 7, 40, 50]
    fig = figure(4, 4)
    legend(fig, [f"class {i}" for i in range(50)], [[i, i, i] for i in range(50)], shown)
    words = [text.get_text() for text in fig.legends[0].get_texts()]
    assert words == ["class 3", "class 7", "class 40", "no class"]


def test_of_very_many_classes_the_largest_are_in_a_legend() -> None:
    label = np.repeat(np.arange(200), np.arange(1, 201))[None]
    assert classes_in([label], 200) == list(range(200 - MOST, 200))


@pytest.mark.parametrize("number", [3, 150])
def test_names_of_classes_stand_at_matrices_and_do_not_overlap(number: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    confusion = rng.integers(1, 9, (number, number))
    confusion[1], confusion[:, 1] = 0, 0  # a class that nobody has seen
    names = [f"a class with a long name, {i}" for i in range(number)]
    fig = matrices.draw({"student": matrices.Matrices(rng.random((number, number)), confusion)}, names)
    fig.draw_without_rendering()
    for axis in fig.axes[:2]:
        texts = axis.get_yticklabels()
        assert len(texts) == number - 1
        assert all(len(text.get_text()) == matrices.NAME for text in texts)
        boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
        assert boxes[0].height >= 5  # pixels: can be read
    assert save(fig, tmp_path / "m.png").stat().st_size > 5000


@pytest.mark.parametrize("two", [False, True])
def test_cases_are_drawn_with_their_titles_and_a_key(two: bool, tmp_path: Path) -> None:
    truth = np.zeros((8, 12), np.uint8)
    states = np.full((8, 12), WON if two else LOST, np.uint8)
    case = cases.Case("a $x$ picture: mIoU 3 %", np.zeros((8, 12, 3), np.uint8), truth, {"student": truth}, states)
    fig = cases.draw({"Worst": [case, case]}, ["a", "b"], [[0, 0, 0], [9, 9, 9]], "errors", two=two)
    assert [text.get_text() for text in fig.texts] == ["Worst", *2 * [r"a \$x\$ picture: mIoU 3 %"]]
    key, classes = ([text.get_text() for text in found.get_texts()] for found in fig.legends)
    assert ("won" in key) == two
    assert classes == ["a"]
    assert len(fig.axes) == 2 * 4
    assert save(fig, tmp_path / "c.png").stat().st_size > 2000
