"""`python -m idd_seg.report` as a user runs it, and what its file may hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.helpers import clean_error, run
from tests.reporting.folders import add_exhibits, config, make_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{}}@@STYLE@@\u2028"


def data_of(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_page_and_tables_are_written(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_exhibits(make_run(tmp_path / "runs" / f"a{seed}", config(seed=seed)))
    words = ["runs", "--out", "page.html", "--csv", "a.csv", "--latex", "a.tex", "--pictures", "1"]
    result = run("report", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("2 runs (0 not finished) in 1 group: page.html, ")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    table = data_of(page, "table-data")
    assert isinstance(table, dict)
    assert [len(group["runs"]) for group in table["groups"]] == [2]
    assert [entry["exhibits"] for entry in table["runs"]] == [True, False]
    assert "default-src 'none'" in page
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"page.html", "a.csv", "a.tex"}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / HOSTILE.replace("/", "_"),
        config(name=HOSTILE, optimizer={HOSTILE: HOSTILE}),
        classes=(HOSTILE, "b"),
        state="failed",
        error=HOSTILE,
    )
    add_exhibits(folder, classes=(HOSTILE, "b"))
    result = run("report", ".", "--title", HOSTILE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # The data blocks: table, curves, one run's exhibits; and the page's own script.
    assert page.count("<script") == page.count("</script>") == 4
    assert "<img" not in page
    table = data_of(page, "table-data")
    assert isinstance(table, dict)
    assert table["runs"][0]["error"] == HOSTILE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "there is no folder 'missing'"),
        (["empty"], "no run in 'empty'"),
        (["runs", "--out", "nowhere/page.html"], "can't write 'nowhere/page.html'"),
        (["runs", "--out", "empty"], "'empty' is a folder"),
        (["runs", "--out", "a", "--csv", "./a"], "must name different files"),
    ],
)
def test_mistakes_get_one_message(tmp_path: Path, words: list[str], message: str) -> None:
    make_run(tmp_path / "runs" / "a", config())
    (tmp_path / "empty").mkdir()
    assert message in clean_error(run("report", *words, cwd=tmp_path))
