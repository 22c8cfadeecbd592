"""The page in a real browser: from a file, by keyboard, narrow, dark, hostile and large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from idd_seg.report import main
from tests.browser import browser, opened
from tests.reporting.folders import add_exhibits, add_scored, config, make_run

HOSTILE = "</script><img src=x onerror=window.hacked=1><b>\"'&"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twin, student of two rates and teacher; a failed run; exhibits."""
    folder = tmp_path_factory.mktemp("study")
    teacher = make_run(folder / "teacher", config(teacher=False, student={"backbone": "resnet101"}), 0.7)
    for seed in (0, 1, 2):
        twin = make_run(folder / f"ce.{seed}", config(seed=seed), 0.4 + 0.01 * seed)
        for weight in (1, 2):
            cfg = config(("ce", "idd"), seed=seed)
            cfg["loss"]["idd_weight"] = weight
            run = make_run(folder / f"idd{weight}.{seed}", cfg, 0.45 + 0.05 * weight + 0.01 * seed, teacher=teacher)
            add_exhibits(run)
            add_scored(run, {"a": 0.2, "b": 0.5, "c": 0.6}, wrong=2)
        add_exhibits(twin)
        add_scored(twin, {"a": 0.3, "b": 0.4, "c": 0.6}, wrong=4)
    make_run(folder / "broken", config(("ce", "kd")), state="failed", error="loss is NaN at step 3")
    for name in ("metrics.json", "metrics.csv"):
        (folder / "broken" / name).unlink()
    main([str(folder), "--out", str(folder / "report.html"), "--title", "A study"])
    return folder / "report.html"


def show_all(page: Any) -> None:
    """Scroll through the page, so that every section is drawn."""
    for name in ("runs", "curves", "classes", "options", "matrices", "pictures", "cases"):
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{name} .body > *")


def first_cells(page: Any) -> list[str]:
    return [row.split("options")[0].strip() for row in page.locator("tr.group td:first-child").all_inner_texts()]


def test_the_table_is_sorted_by_keyboard(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        head = page.locator("th", has_text="mIoU, %")
        assert head.get_attribute("aria-sort") == "descending"
        down = first_cells(page)
        assert down[0].endswith("teacher")
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        # What has no value stays last.
        assert first_cells(page) == [*down[:-1][::-1], down[-1]]
        assert page.locator("th[aria-sort]").count() == 1


def test_a_group_opens_and_shows_runs_errors_and_commands(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        row = page.locator("tr.group", has_text="idd2")
        assert "56.00 ± 1.00" in row.inner_text()
        assert "+15.00 ± 0.00" in row.inner_text()
        row.locator(".plus").press("Enter")
        assert page.locator("tr.run").count() == 3
        assert "python -m idd_seg.train loss=ce" in page.locator("tr.more").first.inner_text()
        page.locator("tr.more button").first.click()
        page.wait_for_selector("button:text('Copied')")
        row.locator(".plus").press("Enter")
        assert page.locator("tr.run").count() == 0
        page.get_by_role("button", name="Show or hide single runs").click()
        assert "loss is NaN at step 3" in page.locator("tr.run:has-text('broken') + tr.more").inner_text()
        assert "metrics.json is missing" in page.locator("tr.run:has-text('broken') + tr.more").inner_text()


def test_curves_have_a_metric_a_legend_and_values_under_the_pointer(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#curves").scroll_into_view_if_needed()
        page.wait_for_selector("#curves svg")
        # Three groups of three seeds with a mean each, and the teacher.
        assert page.locator("#curves svg path").count() == 13
        page.locator("#curves .legend button").nth(1).press("Space")
        assert page.locator("#curves svg path").count() == 9
        page.locator("#curves svg").hover(position={"x": 300, "y": 100})
        assert "step" in page.locator("#curves .tip").inner_text()
        page.locator("#curves select").select_option("train/extra_0")
        assert "train/extra_0" in str(page.locator("#curves svg").get_attribute("aria-label"))


def test_the_slider_moves_by_arrow_keys_between_any_two_pictures(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#pictures").scroll_into_view_if_needed()
        slider = page.locator("#pictures input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert slider.input_value() == "49"
        assert "51%" in page.locator("#pictures img").nth(1).evaluate("e => e.style.clipPath")
        left = page.get_by_label("Left", exact=True)
        assert left.locator("option").all_inner_texts() == ["image", "truth", "student", "teacher", "twin"]
        left.select_option("twin")
        assert page.locator("#pictures img").nth(1).get_attribute("alt") == "twin of sample 0"
        assert page.locator("#pictures img").nth(1).evaluate("e => e.complete && e.naturalWidth") == 32
        assert page.locator("#pictures .key li").all_inner_texts() == ["road", "tree", "sky"]
        page.get_by_label("Sample").select_option("sample 1")
        assert page.locator("#pictures .key li").all_inner_texts() == ["road", "tree"]


def test_matrices_are_read_by_arrow_keys(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#matrices").scroll_into_view_if_needed()
        page.wait_for_selector("#matrices canvas")
        assert page.locator("#matrices canvas").count() == 4
        page.locator("#matrices canvas").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#matrices output").first.inner_text() == "road to tree: 1"


def test_matrices_have_the_names_of_the_classes(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#matrices").scroll_into_view_if_needed()
        page.wait_for_selector("#matrices canvas")
        rows = page.locator("#matrices .heat").first.locator("svg").first.locator("text")
        # A title, for a name that is cut, is a part of its text.
        assert [text[: len(text) // 2] for text in rows.all_text_contents()] == ["road", "tree", "sky"]
        assert not page.get_by_role("button", name="All names").is_visible()


def test_of_many_classes_some_names_are_left_out_until_all_are_wanted(started: Any, tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(150)]
    add_exhibits(make_run(tmp_path / "a", config(), classes=classes), classes=classes)
    main([str(tmp_path), "--out", str(tmp_path / "r.html")])
    with opened(started, tmp_path / "r.html") as (page, _):
        page.locator("#matrices").scroll_into_view_if_needed()
        page.wait_for_selector("#matrices canvas")
        names = page.locator("#matrices .heat").first.locator("svg").first.locator("text")
        assert 20 <= names.count() <= 30
        page.get_by_role("button", name="All names").click()
        assert names.count() == 150
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_worst_and_the_changed_pictures_have_error_maps(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#cases").scroll_into_view_if_needed()
        page.wait_for_selector("#cases figure")
        page.get_by_label("Run", exact=True).last.select_option("idd2, seed 1")
        assert page.locator("#cases h3").all_inner_texts() == [
            "Worst",
            "Most improved against the twin",
            "Most worsened against the twin",
        ]
        captions = page.locator("#cases figcaption").all_inner_texts()
        assert [text.split()[0] for text in captions] == ["a", "b", "c", "b", "a"]
        assert "twin 40.0 %, student 50.0 %; +10.0 points; 13.3 % of the pixels won, 0.0 % lost" in captions[3]
        shown = page.locator("#cases figure").first.locator("img")
        assert [shown.nth(i).get_attribute("alt") for i in range(5)] == [
            f"{kind} of a" for kind in ("image", "truth", "twin", "student", "errors")
        ]
        assert shown.last.evaluate("e => e.complete && e.naturalWidth") == 16
        assert page.locator("#cases .key").first.locator("li").all_inner_texts() == [
            "right in both",
            "wrong in both",
            "won",
            "lost",
            "not labelled",
        ]


def test_options_are_below_the_name(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        cell = page.locator("tr.group", has_text="idd2").locator("td").first
        assert "idd_weight=2" not in cell.inner_text()
        assert "idd_weight=2" in str(cell.get_attribute("title"))
        cell.locator("summary").press("Enter")
        assert "loss=ce+idd" in cell.inner_text()


def test_ranges_keep_lines_of_the_parallel_coordinates(started: Any, study: Path) -> None:
    with opened(started, study) as (page, _):
        page.locator("#options").scroll_into_view_if_needed()
        page.wait_for_selector("#options polyline", state="attached")
        assert page.locator("#options .tools output").inner_text() == "4 of 4 groups within the ranges"
        page.locator("#options summary").click()
        page.get_by_label("mIoU, %: lowest").fill("0.9")
        assert page.locator("#options .tools output").inner_text() == "1 of 4 groups within the ranges"
        page.get_by_role("button", name="Clear ranges").click()
        grip = page.locator("#options rect[cursor=ns-resize]").last.bounding_box()
        x, y, height = grip["x"] + grip["width"] / 2, grip["y"], grip["height"]
        page.mouse.move(x, y + height - 10)
        page.mouse.down()
        page.mouse.move(x, y + height * 0.8, steps=4)
        page.mouse.up()
        assert page.locator("#options .tools output").inner_text() == "1 of 4 groups within the ranges"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(started: Any, study: Path, width: int, scheme: str) -> None:
    with opened(started, study, viewport={"width": width, "height": 800}, color_scheme=scheme) as (page, _):
        show_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def test_hostile_names_are_text(started: Any, tmp_path: Path) -> None:
    for i in (0, 1):
        cfg = config(("ce", HOSTILE), optimizer={"lr": i, HOSTILE: HOSTILE * (i + 1)})
        folder = tmp_path / f"{i}{HOSTILE.replace('/', '_')}"
        make_run(folder, cfg, classes=(HOSTILE, "b"), state="failed", error=HOSTILE, command=["train.py", HOSTILE])
        content = add_exhibits(folder, classes=(HOSTILE, "b"))
        assert content["class_names"][0] == HOSTILE
    main([str(tmp_path), "--out", str(tmp_path / "r.html"), "--title", HOSTILE])
    with opened(started, tmp_path / "r.html") as (page, _):
        show_all(page)
        page.get_by_role("button", name="Show or hide single runs").click()
        assert page.evaluate("window.hacked") is None
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("tr.more").first.locator(".bad").first.inner_text() == HOSTILE
        assert page.title() == HOSTILE


def test_only_broken_runs_make_a_page(started: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text("{")
    main([str(tmp_path), "--out", str(tmp_path / "r.html")])
    with opened(started, tmp_path / "r.html") as (page, _):
        show_all(page)
        assert "half-written" in page.locator("tr.group").inner_text()


def test_a_sweep_of_200_runs_opens_at_once(started: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(200):
        cfg = config(("ce", "idd"), seed=i % 2, optimizer={"lr": 0.001 * (1 + i // 2)})
        folder = make_run(tmp_path / "sweep" / str(i), cfg, 0.3 + i / 1000, points=400, columns=12)
        if i < 12:
            add_exhibits(folder, size=512)
    main([str(tmp_path / "sweep"), "--out", str(tmp_path / "r.html")])
    size = (tmp_path / "r.html").stat().st_size / 2**20
    times = []
    for _ in range(3):
        with opened(started, tmp_path / "r.html") as (page, _heard):
            # One frame after the rows stand in the table they take clicks.
            page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            times.append(page.evaluate("performance.getEntriesByName('table')[0].startTime"))
            whole = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            page.locator("tr.group .plus").first.click(timeout=6000)
            assert page.locator("tr.group").count() == 100
    with capsys.disabled():
        took = ", ".join(f"{t:.0f}" for t in times)
        print(f"\n200 runs, {size:.1f} MiB: the table stands after {took} ms, the page is loaded after {whole:.0f} ms")
    assert max(times) < 6000
