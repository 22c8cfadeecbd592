"""A line is new once in a block, in the outermost one, and always outside of any."""

from __future__ import annotations

from idd_seg.ops.said_once import each_line_once, is_new


def test_a_line_is_new_once_in_a_block() -> None:
    with each_line_once():
        assert [is_new(line) for line in "aab"] == [True, False, True]
        with each_line_once():
            assert not is_new("a")
            assert is_new("c")
        assert not is_new("c")
    with each_line_once():
        assert is_new("a")


def test_outside_of_any_block_each_line_is_new() -> None:
    assert [is_new("a"), is_new("a")] == [True, True]
