"""Values of a program become options of a command line, and come out as they went in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from idd_seg.config.from_python import words_of_options
from idd_seg.errors import ConfigError

VALUES: list[Any] = [
    *(None, True, False, 0, -3, 2**40, 0.5, 1e-9, float("inf")),
    *("shapes", "1e3", "null", "TRUE", "inf", "", " ", "a b", "a,b", "[a]", "{a: b}", "a=b", "ä", "/data/x.y", "a:b"),
    *('"', "'", "\\", '\\"', 'a\\\\"b"', "a\\", "C:\\data\\", "(x)", "a#b", "%&*?~", "line\nline"),
    *([], [1, "a", None], [["1", 2], ["x,y"]], ["it's", 'so "quoted"']),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_read_as_it_was_given(value: Any) -> None:
    (word,) = words_of_options([], {"name": value})
    read = OverridesParser.create().parse_override(word).value()
    assert read == value
    assert type(read) is type(value)


def test_tuples_and_paths_are_lists_and_texts() -> None:
    assert words_of_options([], {"size": (1, 2), "root": Path("/a b")}) == ["size=[1,2]", 'root="/a b"']


def test_a_mapping_stands_for_the_options_inside() -> None:
    found = words_of_options(["a=1"], {"trainer": {"max_steps": 9, "deep": {"x": None}}, "loss": ["ce", "kd"]})
    assert found == ["a=1", "trainer.max_steps=9", "trainer.deep.x=null", "loss=[ce,kd]"]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, [object()]])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="name: a value is a number, a text"):
        words_of_options([], {"name": value})
