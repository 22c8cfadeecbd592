"""From what label files hold to class ids, against a look at each pixel by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from idd_seg.data.pipeline.labels import ColourMap, LabelMap, ToClasses, with_table
from idd_seg.errors import ConfigError, DataError

Array = NDArray[Any]
IGNORE = 255


def slow_values(label: Array, classes: dict[int, int], ignored: set[int]) -> list[list[int]] | int:
    """Return class ids, or the first value (by rows) that stands for nothing."""
    found = []
    for row in label.tolist():
        found.append([])
        for value in row:
            if value in ignored:
                found[-1].append(IGNORE)
            elif value in classes:
                found[-1].append(classes[value])
            else:
                return int(value)
    return found


def agree(labels: ToClasses, label: Array, expected: list[list[int]] | int | str) -> None:
    if isinstance(expected, list):
        found = labels(label, "a.png")
        assert found.dtype == np.uint8
        assert found.tolist() == expected
        return
    with pytest.raises(DataError) as caught:
        labels(label, "a.png")
    assert str(caught.value).startswith("a.png: its label has the ")
    assert f" {expected}" in str(caught.value)


shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_values_against_a_look_at_each_pixel(data: st.DataObject) -> None:
    number = data.draw(st.integers(2, 12))
    known = data.draw(st.dictionaries(st.integers(0, 254), st.integers(0, number - 1), min_size=1))
    ignored = data.draw(st.sets(st.integers(0, 254)).map(lambda s: s - set(known)))
    choices = sorted({*known, *ignored, IGNORE})
    if data.draw(st.booleans()):
        choices.append(data.draw(st.integers(0, 255)))
    height, width = data.draw(shapes)
    drawn = data.draw(st.lists(st.sampled_from(choices), min_size=height * width, max_size=height * width))
    label = np.array(drawn, np.uint8).reshape(height, width)
    agree(LabelMap(number, IGNORE, sorted(ignored), known), label, slow_values(label, known, {*ignored, IGNORE}))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_colours_against_a_look_at_each_pixel(data: st.DataObject) -> None:
    # Few channel values, so that colours differ by one channel alone.
    colour = st.tuples(*[st.sampled_from([0, 1, 127, 128, 255])] * 3)
    known = data.draw(st.lists(colour, min_size=3, max_size=20, unique=True))
    void = data.draw(st.integers(0, 2))
    classes, ignored = known[void:], known[:void]
    choices = [*known, data.draw(colour)] if data.draw(st.booleans()) else known
    height, width = data.draw(shapes)
    drawn = data.draw(st.lists(st.sampled_from(choices), min_size=height * width, max_size=height * width))
    label = np.array(drawn, np.uint8).reshape(height, width, 3)
    table = {**{c: i for i, c in enumerate(classes)}, **dict.fromkeys(ignored, IGNORE)}
    stray = next((list(c) for c in drawn if c not in table), None)
    grid = [[table.get(tuple(c), -1) for c in row] for row in label.tolist()]
    agree(ColourMap(classes, IGNORE, ignored), label, grid if stray is None else str(stray))


def test_the_label_is_left_alone() -> None:
    values, colours = np.array([[0, 1, 9]], np.uint8), np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    for labels, label in ((LabelMap(2, 255, [9]), values), (ColourMap([[1, 2, 3], [4, 5, 6]], 255), colours)):
        before = label.copy()
        label.flags.writeable = False
        labels(label, "x")
        assert np.array_equal(label, before)


@pytest.mark.parametrize("build", [lambda: LabelMap(4, 255), lambda: ColourMap([[i, 0, 0] for i in range(4)], 255)])
def test_parts_and_mirrors_of_a_label_are_mapped_alike(build: Any) -> None:
    labels = build()
    label = np.random.default_rng(0).integers(0, 4, (9, 11)).astype(np.uint8)
    stored = np.stack([label, 0 * label, 0 * label], -1) if labels.colours else label
    for part in (np.s_[2:7, 3:10], np.s_[::2, ::3], np.s_[::-1, ::-1]):
        assert np.array_equal(labels(np.ascontiguousarray(stored[part]), "x"), label[part])
    assert np.array_equal(labels(stored[2:7, 3:10], "x"), label[2:7, 3:10])


@pytest.mark.parametrize("number", [2, 19, 150, 171, 254])
def test_every_number_of_classes(number: int) -> None:
    label = np.append(np.arange(number), 255).astype(np.uint8)[None]
    assert LabelMap(number, 255)(label, "x").tolist() == label.tolist()
    for value in range(number, 255):
        with pytest.raises(DataError, match=f"value {value};"):
            LabelMap(number, 255)(np.full((1, 1), value, np.uint8), "x")


@pytest.mark.parametrize("number", [2, 150, 254])
def test_every_number_of_colours(number: int) -> None:
    colours = [[i, 255 - i, i * 7 % 256] for i in range(number)]
    label = np.array([colours], np.uint8)
    assert ColourMap(colours, 255)(label, "x").tolist() == [list(range(number))]


@pytest.mark.parametrize("ignore_index", [254, 100])
def test_another_index_of_what_is_ignored(ignore_index: int) -> None:
    labels = LabelMap(3, ignore_index, ignored=[7])
    assert labels(np.array([[0, 1, 2, 7, ignore_index]], np.uint8), "x").tolist() == [[0, 1, 2, *[ignore_index] * 2]]
    with pytest.raises(DataError, match="value 255"):
        labels(np.array([[255]], np.uint8), "x")
    coloured = ColourMap([[0, 0, 0], [1, 1, 1]], ignore_index, [[9, 9, 9]])
    assert coloured(np.array([[[9, 9, 9], [1, 1, 1]]], np.uint8), "x").tolist() == [[ignore_index, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 255, "ignore_index": 255},
        {"num_classes": 2, "ignore_index": -1},
        {"num_classes": 2, "ignore_index": 256},
        {"num_classes": 2, "ignore_index": 255, "ignored": [256]},
        {"num_classes": 2, "ignore_index": 255, "ignored": [-1]},
        {"num_classes": 2, "ignore_index": 255, "mapping": {-1: 0}},
        {"num_classes": 2, "ignore_index": 255, "mapping": {0: 2}},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\.(num_classes|ignored|label_values)"):
        LabelMap(**options)


def test_a_colour_of_two_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.palette: the colour \[1, 2, 3\] stands for two classes"):
        ColourMap([[1, 2, 3], [4, 5, 6], [1, 2, 3]], 255)
    with pytest.raises(ConfigError, match=r"\[4, 5, 6\]"):
        ColourMap([[1, 2, 3], [4, 5, 6]], 255, [[4, 5, 6]])


# reduce_zero_label


@pytest.mark.parametrize("number", [1, 19, 150, 254])
@pytest.mark.parametrize("ignored", [[], [255], [0]], ids=str)
def test_reduce_zero_label_is_the_table_of_minus_one(number: int, ignored: list[int]) -> None:
    reduced = LabelMap(number, IGNORE, ignored, reduce_zero_label=True)
    table = {value: value - 1 for value in range(1, number + 1)}
    explicit = LabelMap(number, IGNORE, sorted({0, *ignored}), table)
    assert np.array_equal(reduced.table, explicit.table)
    assert (reduced.ignored, reduced.known, reduced.stray) == (explicit.ignored, explicit.known, explicit.stray)
    written = with_table({"name": "x", "num_classes": number, "ignored": ignored, "reduce_zero_label": True})
    assert written == {"name": "x", "num_classes": number, "ignored": sorted({0, *ignored}), "label_values": table}


def test_reduce_zero_label_ignores_0_and_255() -> None:
    labels = LabelMap(3, IGNORE, reduce_zero_label=True)
    assert labels(np.array([[0, 1, 2, 3, 255]], np.uint8), "x").tolist() == [[255, 0, 1, 2, 255]]


def test_a_value_above_the_classes_of_reduce_zero_label_is_told() -> None:
    with pytest.raises(DataError, match=r"a\.png: its label has the value 4; the data set has the classes 1 to 3 and"):
        LabelMap(3, IGNORE, reduce_zero_label=True)(np.array([[1, 4]], np.uint8), "a.png")


@pytest.mark.parametrize("mapping", [{1: 0, 2: 1}, {}], ids=str)
def test_reduce_zero_label_and_label_values_together_are_refused(mapping: dict[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"data\.reduce_zero_label=true and data\.label_values both say"):
        LabelMap(2, IGNORE, mapping=mapping, reduce_zero_label=True)


def test_a_class_of_reduce_zero_label_is_not_ignored() -> None:
    with pytest.raises(ConfigError, match=r"the value 2 is a class by data\.reduce_zero_label, and ignored"):
        LabelMap(2, IGNORE, ignored=[2], reduce_zero_label=True)


@pytest.mark.parametrize(
    "options", [{"label_values": {1: 0}, "ignored": [0]}, {}, {"reduce_zero_label": False}], ids=str
)
def test_options_without_reduce_zero_label_stay_as_they_are(options: dict[str, Any]) -> None:
    assert with_table(options) == {key: value for key, value in options.items() if key != "reduce_zero_label"}


# A pixel is never dropped in silence


def test_a_class_may_be_stored_as_255() -> None:
    # Masks of two classes are mostly stored as 0 and 255.
    try:
        labels = LabelMap(2, 255, mapping={0: 0, 255: 1})
    except ConfigError:
        return
    assert labels(np.array([[0, 255]], np.uint8), "x").tolist() == [[0, 1]]


def test_a_value_is_not_both_a_class_and_ignored() -> None:
    with pytest.raises(ConfigError, match="1"):
        LabelMap(2, 255, ignored=[1], mapping={0: 0, 1: 1})


def test_more_colours_than_ids_are_refused() -> None:
    for number in (256, 300):
        with pytest.raises(ConfigError):
            ColourMap([[i % 256, i // 256, 0] for i in range(number)], 255)


def test_a_colour_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="300"):
        ColourMap([[0, 0, 0], [1, 1, 300]], 255)
