"""The documentation as a site: every page has its place, and formulas become what browsers show."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[1]
NEEDED = ("mkdocs", "material", "mkdocstrings", "latex2mathml")


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which a function is named."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def navigation(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    return [page for child in (node.values() if isinstance(node, dict) else node) for page in navigation(child)]


SITE = yaml.load((TOP / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def test_every_page_stands_in_the_navigation_once() -> None:
    found = navigation(SITE["nav"])
    pages = {path.name for path in (TOP / "docs").glob("*.md")} | {"results/details.md"}
    assert len(found) == len(set(found))
    assert set(found) == pages | {"index.md", "CHANGELOG.md", "CONTRIBUTING.md"}


def test_nothing_comes_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert not re.findall(r"https?://", (TOP / "mkdocs.yml").read_text(encoding="utf-8"))


def test_every_question_has_a_short_answer_with_a_link() -> None:
    _, *parts = (TOP / "docs" / "faq.md").read_text(encoding="utf-8").split("\n## ")
    assert len(parts) >= 12
    for part in parts:
        question, _, answer = part.partition("\n")
        sentences = re.findall(r"[.?](?=\s|$)", re.sub(r"`[^`]*`|\([^)]*\)", "", answer))
        assert question.endswith("?"), question
        assert 2 <= len(sentences) <= 5, (question, len(sentences))
        assert re.search(r"\]\(\w+\.md", answer), question
    assert "(docs/faq.md)" in (TOP / "README.md").read_text(encoding="utf-8")


def maths() -> ModuleType:
    for name in ("griffe", "latex2mathml"):
        pytest.importorskip(name, reason="pip install 'idd-seg[docs]'")
    spec = importlib.util.spec_from_file_location("maths", TOP / "scripts" / "docs_site" / "maths.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_of_docstrings_are_those_of_pages() -> None:
    text = "Mean of :math:`a_i`.\n\n    .. math:: x = \\big(y,\n        z\\big)\n\n    where z is\n"
    assert maths().in_dollars(text) == "Mean of $a_i$.\n\n    $$\n    x = \\big(y, z\\big)\n    $$\n\n    where z is\n"


def test_formulas_are_mathml() -> None:
    shown = maths().in_mathml('<span class="arithmatex">\\(\\mathrm{KL}\\big(a &lt; b\\big)^2\\)</span>')
    assert "<math" in shown
    assert '<mi mathvariant="normal">KL</mi>' in shown
    assert "</mrow><mn>2</mn></msup>" in shown
    with pytest.raises(ValueError, match="a command that MathML has not"):
        maths().in_mathml('<span class="arithmatex">\\(\\nosuchcommand\\)</span>')


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs pip install 'idd-seg[docs]'"
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "reference" / "losses.html").is_file()
    shutil.rmtree(tmp_path / "site")
