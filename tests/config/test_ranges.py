"""Options of every command that are wrong by themselves are told before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import clean_error, run_here

MISTAKES = [
    ("export", ["checkpoint=x", "formats=null"], "formats must be a list of words, got 'None'"),
    ("prepare", ["data=shapes", "splits=null"], "splits must be a list of words, got 'None'"),
    ("prepare", ["data=shapes", "workers=two"], "workers must be a whole number >= 0, got 'two'"),
    ("prepare", ["data=shapes", "samples=null"], "samples must be a whole number >= 1, got 'None'"),
    ("compare", ["runs={a: x}", "samples=many"], "samples must be a whole number >= 1, got 'many'"),
    ("predict", ["checkpoint=x", "input=y", "save=null"], "save must be a list of words, got 'None'"),
    ("study", ["study=shapes", "jobs=0"], "jobs must be a whole number >= 1, got '0'"),
    ("study", ["study=shapes", "only=kd"], 'only must be a list of methods, e.g. only=["twin","kd"], got "kd"'),
    ("study", ["study=shapes", "study.seeds=3"], "study.seeds must be a list, e.g. [3], got '3'"),
    ("evaluate", [], "the option 'checkpoint' has no value; give one: checkpoint=..."),
]


@pytest.mark.parametrize(("command", "options", "message"), MISTAKES, ids=lambda x: x if isinstance(x, str) else None)
def test_a_wrong_option_is_told(command: str, options: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a checkpoint, which nobody reads before the option")
    assert clean_error(run_here(command, *options, cwd=tmp_path)) == f"error: {message}"
