"""The share of the tests that a commit's quick run takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import drawn

TESTS = Path(__file__).parent


@pytest.mark.parametrize("start", drawn.SHARES)
def test_what_is_shared_out_is_there(start: str) -> None:
    file, _, function = start.removesuffix("*").partition("::")
    assert f"def {function}" in (TESTS / file).read_text(encoding="utf-8")


def test_every_test_is_drawn_by_some_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"test_cli.py::test_a_mistake_gets_one_clear_error[{i}]" for i in range(30)]
    taken: dict[str, int] = dict.fromkeys(names, 0)
    for commit in range(60):
        monkeypatch.setattr(drawn, "draw", lambda commit=commit: f"{commit:08x}")
        for name in names:
            taken[name] += drawn.is_drawn(name)
    assert min(taken.values()) > 0
    assert 0.25 < sum(taken.values()) / (60 * 30) < 0.42  # one in three


def test_a_file_is_taken_whole_and_the_rest_always(monkeypatch: pytest.MonkeyPatch) -> None:
    for commit in range(20):
        monkeypatch.setattr(drawn, "draw", lambda commit=commit: f"{commit}")
        assert len({drawn.is_drawn(f"test_templates.py::test_{i}") for i in range(9)}) == 1
        assert drawn.is_drawn("losses/test_idd.py::test_a")
        assert drawn.is_drawn("test_docs.py::test_command[python -m idd_seg.train]")
    monkeypatch.setattr(drawn, "draw", lambda: "all")
    assert all(drawn.is_drawn(f"test_signals.py::test_{i}") for i in range(20))
