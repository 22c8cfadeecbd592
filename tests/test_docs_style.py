"""Pages are short, their links lead somewhere, and what they list is what there is."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

from idd_seg.benchmark import SUITES
from idd_seg.config.groups import chosen_groups, config_dir, options_of

TOP = Path(__file__).parents[1]
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(TOP)) for page in PAGES]
PAGE_OF_TERMS = (TOP / "docs" / "losses.md").read_text(encoding="utf-8")
WIDEST = 160
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def without_code(page: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a page outside of code blocks."""
    found, is_code = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            found.append((number, line))
    return found


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next one of its rank or higher."""
    rank = len(heading) - len(heading.lstrip("#"))
    text = (TOP / "docs" / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{rank}}} ", text, maxsplit=1, flags=re.M)[0]


def first_cells(table: str) -> set[str]:
    """Return the names in backquotes of the first cells of a table's rows."""
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on the usual hosts."""
    titles = [line.lstrip("#").strip() for _, line in without_code(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_line_of_prose_is_long(page: Path) -> None:
    long = [n for n, line in without_code(page) if len(line) > WIDEST and not line.startswith(("|", "$$"))]
    assert not long, f"{page.name}: lines {long} have more than {WIDEST} characters"


@pytest.mark.parametrize(("name", "most"), [("README.md", 60), ("docs/results.md", 150)])
def test_a_page_is_short(name: str, most: int) -> None:
    assert len((TOP / name).read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for _, line in without_code(page):
        for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_term_has_a_formula_and_a_row() -> None:
    terms = set(options_of("loss"))
    assert set(re.findall(r"^### `(\w+)`: ", PAGE_OF_TERMS, re.M)) == terms
    assert first_cells(section("losses.md", "## What each one looks at")) == terms
    assert first_cells(section("losses.md", "## Each one alone")) == terms - {"ce"}
    for name in terms:
        heading = next(line for line in PAGE_OF_TERMS.splitlines() if line.startswith(f"### `{name}`: "))
        assert "\n$$" in section("losses.md", heading)


def test_every_term_can_be_drawn() -> None:
    spec = spec_from_file_location("draw_losses", TOP / "scripts" / "draw_losses.py")
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    assert set(script.drawings()) == set(options_of("loss"))


TABLES = [
    ("data.md", "# Data sets", "data"),
    ("studies.md", "# Studies: methods side by side", "study"),
    ("sweeps.md", "## Ready ones", "hparams"),
]


@pytest.mark.parametrize(("page", "heading", "group"), TABLES)
def test_a_table_of_choices_is_whole(page: str, heading: str, group: str) -> None:
    text = (TOP / "docs" / page).read_text(encoding="utf-8")
    part = text if heading.startswith("# ") else section(page, heading)
    table = part.split(f"\n| `{group}=` |", 1)[1] if f"| `{group}=` |" in part else part
    assert first_cells(table.split("\n\n", 1)[0]) == set(options_of(group))


def test_every_teacher_is_named() -> None:
    text = (TOP / "docs" / "teachers.md").read_text(encoding="utf-8")
    assert set(options_of("teacher")) <= set(re.findall(r"`(\w+)`", text))


def test_every_choice_of_a_training_stands_in_the_table_of_choices() -> None:
    rows = dict(re.findall(r"^\| `([\w@./]+)=` \| (.*) \|$", section("training.md", "## Choices"), re.M))
    for group in chosen_groups("train"):
        assert group in rows, group
        linked = "options.md#" in rows[group]
        assert linked or set(options_of(group)) <= set(re.findall(r"`([\w]+)`", rows[group])), group


def test_pages_name_files_that_are_there() -> None:
    roots = ("src/", "conf/", "scripts/", "tests/", "docs/")
    for page in PAGES:
        for _, line in without_code(page):
            for name in re.findall(r"`((?:src|conf|scripts|tests|docs)/[\w./<>]+)`", line):
                found = name if "<" not in name else str(Path(name.split("<")[0] + "x").parent)
                assert page.name == "CHANGELOG.md" or (TOP / found).exists(), f"{page.name}: {name}"
    assert all((TOP / root).is_dir() for root in roots)
    assert config_dir() == TOP / "conf"


def keys(path: str) -> set[str]:
    """Return the options at the top of a file of conf/."""
    text = (config_dir() / f"{path}.yaml").read_text(encoding="utf-8")
    return {key for key in yaml.safe_load(text) if not key.startswith("_") and key != "defaults"}


OF_EVERY_TERM = {"weight", "num_classes", "ignore_index", "schedule"}


@pytest.mark.parametrize("name", ["idd", "position", "class_position", "class_mass"])
def test_a_table_of_a_terms_options_is_whole(name: str) -> None:
    heading = next(line for line in PAGE_OF_TERMS.splitlines() if line.startswith(f"### `{name}`: "))
    options = yaml.safe_load((config_dir() / "loss" / f"{name}.yaml").read_text(encoding="utf-8"))[name]
    wanted = {key for key in options if not key.startswith("_")} - OF_EVERY_TERM
    assert first_cells(section("losses.md", heading)) == wanted


def test_every_setting_of_speed_has_a_row() -> None:
    rows = {re.split("=", cell)[0] for cell in first_cells(section("performance.md", "## Settings"))}
    assert {f"speed.{key}" for key in keys("speed/default")} - {"speed.compile"} <= rows


def test_every_suite_is_shown() -> None:
    shown = {suite for page in PAGES for suite in re.findall(r"idd_seg\.benchmark (\w+)", page.read_text("utf-8"))}
    assert set(SUITES) <= shown


@pytest.mark.parametrize("group", ["hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler", "hydra/sweeper/pruner"])
def test_every_launcher_and_sweeper_is_shown(group: str) -> None:
    text = "".join((TOP / "docs" / name).read_text(encoding="utf-8") for name in ("sweeps.md", "clusters.md"))
    assert not [name for name in options_of(group) if name != "none" and name not in text]
