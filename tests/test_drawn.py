"""The share of the tests that a commit's quick run takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import drawn

TESTS = Path(__file__).parent


STARTS = [*drawn.SHARES, *(start for lines in drawn.TURNS for starts in lines for start in starts)]


@pytest.mark.parametrize("start", STARTS)
def test_what_is_shared_out_is_there(start: str) -> None:
    test, _, case = start.removesuffix("*").removesuffix("]").partition("[")
    file, _, function = test.partition("::")
    text = (TESTS / file).read_text(encoding="utf-8")
    assert f"def {function}" in text
    assert case in text


def test_a_kind_is_in_every_run_and_each_of_its_tests_in_some(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"test_cli.py::test_every_command_has_help[{i}]" for i in range(31)]
    taken: dict[str, int] = dict.fromkeys(names, 0)
    for commit in range(60):
        monkeypatch.setattr(drawn, "draw", lambda commit=commit: f"{commit:08x}")
        found = set(names) - drawn.left_out(names)
        assert len(found) in (10, 11)  # one in three
        assert found == set(names) - drawn.left_out(reversed(names))
        for name in found:
            taken[name] += 1
    assert min(taken.values()) > 10


def test_each_run_takes_one_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in drawn.TURNS:
        kinds = [{f"{start}_x" for start in starts} for starts in lines]
        seen = set()
        for commit in range(60):
            monkeypatch.setattr(drawn, "draw", lambda commit=commit: f"{commit:08x}")
            left = drawn.left_out(name for kind in kinds for name in kind)
            (taken,) = [place for place, kind in enumerate(kinds) if not kind & left]
            assert left == {name for place, kind in enumerate(kinds) for name in kind if place != taken}
            seen.add(taken)
        assert seen == set(range(len(lines)))


def test_a_file_is_taken_whole_and_the_rest_always(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {f"test_templates.py::test_{i}" for i in range(9)}
    always = {"losses/test_idd.py::test_a", "test_docs.py::test_command[python -m idd_seg.train]"}
    many = {f"test_signals.py::test_{i}" for i in range(20)}
    for commit in range(20):
        monkeypatch.setattr(drawn, "draw", lambda commit=commit: f"{commit}")
        left = drawn.left_out(whole | always | many)
        assert whole & left in (whole, set())
        assert not always & left
        assert many & left
    monkeypatch.setattr(drawn, "draw", lambda: "all")
    assert not drawn.left_out(whole | always | many)
