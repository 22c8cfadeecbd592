"""The class list of data=folder: what may stand in it, and a message that names the file for all else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf.errors import OmegaConfBaseException

from idd_seg.config.messages import explain
from idd_seg.data.pipeline.class_list import ClassList, read_class_list
from idd_seg.errors import DataError, UserError
from idd_seg.ops.colours import difference, distinct_colours
from tests.data.layouts import make_data


def read(tmp_path: Path, text: str | bytes) -> ClassList:
    path = tmp_path / "my classes ü.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_class_list(path)


def test_names_alone(tmp_path: Path) -> None:
    found = read(tmp_path, "classes: [road, traffic light, 街]\n")
    assert (found.names, found.count) == (["road", "traffic light", "街"], 3)
    assert found.label_values == {0: 0, 1: 1, 2: 2}
    assert (found.ignored, found.ignored_colours) == ([], [])
    assert found.palette == distinct_colours(3)


def test_everything_at_once(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        classes:
          - {name: sky, value: 7, colour: [1, 2, 3]}
          - name: house
            values: [21, 22, 0x17]
            colour: [255, 0, 255]
          - tree
          - {name: water, value: 200}
        ignore: [0, [9, 9, 9], 255, [8, 8, 8]]
        """,
    )
    assert found.names == ["sky", "house", "tree", "water"]
    assert found.label_values == {7: 0, 21: 1, 22: 1, 23: 1, 2: 2, 200: 3}
    assert found.palette[:2] == [[1, 2, 3], [255, 0, 255]]
    assert found.ignored == [0, 255]
    assert found.ignored_colours == [[9, 9, 9], [8, 8, 8]]


@pytest.mark.parametrize("ignore", ["", "ignore:\n", "ignore: []\n", "ignore: null\n"])
def test_nothing_need_be_ignored(tmp_path: Path, ignore: str) -> None:
    assert read(tmp_path, f"classes: [a, b]\n{ignore}").ignored == []


def test_colours_that_are_made_up_differ(tmp_path: Path) -> None:
    found = read(tmp_path, f"classes: [{', '.join(f'c{i}' for i in range(250))}]")
    assert len({tuple(colour) for colour in found.palette}) == 250
    assert [0, 0, 0] not in found.palette


def test_colours_that_are_made_up_keep_away_from_those_that_are_given(tmp_path: Path) -> None:
    blue = distinct_colours(1)[0]
    found = read(tmp_path, f"classes: [a, {{name: b, colour: {blue}}}, {', '.join(f'c{i}' for i in range(38))}]")
    apart = difference(*2 * [np.array(found.palette, np.uint8)])
    np.fill_diagonal(apart, np.inf)
    assert found.palette[1] == blue
    assert apart.min() > 14


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("classes: [a, b]")
    assert read_class_list("~/c.yaml").names == ["a", "b"]


BAD = {
    "empty": ("", "a class list holds 'classes', a list"),
    "a list": ("[a, b]", "a class list holds 'classes', a list"),
    "no classes": ("names: [a, b]", "a class list holds 'classes', a list"),
    "a dictionary of classes": ("classes: {a: 1, b: 2}", "a class list holds 'classes', a list"),
    "another key": ("classes: [a, b]\nignored: [1]", "nothing else"),
    "none": ("classes: []", "there are 0 classes, and at least 2 are needed"),
    "one": ("classes: [a]", "there are 1 classes, and at least 2 are needed"),
    "twice": ("classes: [a, b, a]", "two classes are called 'a'"),
    "no name": ("classes: [a, {value: 3}]", "class 1 must be a name, or hold 'name'"),
    "a number": ("classes: [a, 7]", "class 1 must be a name"),
    "yes and no": ("classes: [yes, b]", "class 0 must be a name"),
    "null": ("classes: [a, null]", "class 1 must be a name"),
    "a key of a class": ("classes: [a, {name: b, color: [1, 2, 3]}]", "class 1 must be a name, or hold .*colour"),
    "value twice": ("classes: [{name: a, value: 1}, {name: b, value: 1}]", "the value 1 stands for 'a' and for 'b'"),
    "value of a place": ("classes: [{name: a, value: 1}, b]", "the value 1 stands for 'a' and for 'b'"),
    "value and values": ("classes: [a, {name: b, value: 1, values: [2]}]", "'b' has either a 'value', or 'values'"),
    "values no list": ("classes: [a, {name: b, values: 2}]", "'b' has either a 'value', or 'values', a list"),
    "value too large": ("classes: [a, {name: b, value: 256}]", "'b': a value .* 0 to 255, got 256"),
    "value negative": ("classes: [a, {name: b, value: -1}]", "'b': a value .* got -1"),
    "value a text": ("classes: [a, {name: b, value: '1'}]", "'b': a value .* got '1'"),
    "value a fraction": ("classes: [a, {name: b, value: 1.5}]", r"'b': a value .* got 1\.5"),
    "value true": ("classes: [a, {name: b, value: true}]", "'b': a value .* got True"),
    "colour of two": ("classes: [a, {name: b, colour: [1, 2]}]", r"'b': a colour is a list of three .* got \[1, 2\]"),
    "colour a text": ("classes: [a, {name: b, colour: '#ffffff'}]", "'b': a colour is .* got '#ffffff'"),
    "colour too large": ("classes: [a, {name: b, colour: [1, 2, 300]}]", "'b': .* 0 to 255, got 300"),
    "ignored value": ("classes: [a, b]\nignore: [300]", "'ignore': a value .* got 300"),
    "ignored colour": ("classes: [a, b]\nignore: [[1, 2]]", r"'ignore': a colour .* got \[1, 2\]"),
    "no yaml": ("classes: [a, b", "the class list is no YAML"),
    "an object": ("classes: !!python/object/apply:os.system [ls]", "the class list is no YAML"),
    "no text": (b"classes: [\xff\xfe]", "can't be read"),
    "deep": ("classes: " + "[" * 3000, "the class list is no YAML"),
    "large": ("classes: [a, b] #" + "x" * (1 << 20), "more than 1048576 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_named(tmp_path: Path, kind: str) -> None:
    text, message = BAD[kind]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text)
    assert "my classes ü.yaml" in str(caught.value)


@pytest.mark.parametrize("word", ["no", "yes", "null", "~", "0", "1.5", "2020-01-01", "off", "True", "0x10"])
@pytest.mark.parametrize("form", ["- {}", "- {{name: {}, value: 4}}"])
def test_a_name_that_yaml_reads_otherwise_is_to_be_quoted(tmp_path: Path, word: str, form: str) -> None:
    with pytest.raises(
        DataError, match=rf"class 1 must be a name, but YAML reads {re.escape(word)} as .*quotes, '{word}'"
    ):
        read(tmp_path, f"classes:\n- a\n{form.format(word)}\n")
    quoted = form.format(f"'{word}'")
    assert read(tmp_path, f"classes:\n- a\n{quoted}\n").names == ["a", word]


def test_an_empty_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 1 must be a name, but YAML reads an empty entry as nothing"):
        read(tmp_path, "classes:\n- a\n-\n")


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    text = """
    classes: [no, {name: b, value: 300}, {name: c, colour: red}, {name: d, value: 7}, {name: e, value: 7}]
    ignore: [-1, 7]
    """
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert "6 entries can't be used" in lines[0]
    for number, words in enumerate(
        ("class 0", "'b'.*300", "'c'.*'red'", "7 stands for 'd' and for 'e'", "-1", "ignored"), 1
    ):
        assert re.search(words, str(caught.value)), (number, lines)
    assert "data.label_values" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "c.yaml"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=r"c\.yaml' can't be read.*data\.classes=FILE"):
        read_class_list(path)


def test_a_single_value_to_ignore_is_understood_or_refused(tmp_path: Path) -> None:
    try:
        found = read(tmp_path, "classes: [a, b]\nignore: 255")
    except DataError as error:
        message = str(error)
    else:
        message = "" if found.ignored == [255] else "other"
    assert message == "" or "'ignore'" in message


def test_a_value_is_not_both_a_class_and_ignored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1"):
        read(tmp_path, "classes: [a, b]\nignore: [1]")


# As the command line meets it


@pytest.mark.parametrize(
    ("text", "message"), [(None, "can't be read"), ("classes: [a]", "there are 1 classes, and at least 2 are needed")]
)
def test_the_command_line_says_the_same(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises((UserError, OmegaConfBaseException)) as caught:
        make_data("folder", tmp_path)
    told = explain(caught.value, "train", [])
    assert message in told
    assert str(tmp_path / "classes.yaml") in told
    assert "interpolation" not in told


def test_another_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("classes: [x, y, z]\nignore: [3]")
    data = make_data("folder", tmp_path / "root", f'data.classes="{tmp_path}/other.yaml"')
    assert (data.num_classes, data.class_names) == (3, ["x", "y", "z"])
