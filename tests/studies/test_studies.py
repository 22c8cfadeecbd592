"""Plans, statistics and tables of a study."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import yaml

from idd_seg.errors import ConfigError
from idd_seg.plotting.figures import sample_rows, save
from idd_seg.studies.equal_time import to_score
from idd_seg.studies.jobs import Result
from idd_seg.studies.picture import draw
from idd_seg.studies.plan import read_plan
from idd_seg.studies.statistics import Spread, t_quantile
from idd_seg.studies.tables import gains, markdown


def plan(methods: dict, **changes: object) -> dict:
    node = {"name": "x", "common": [], "search": [], "factors": [1.0], "seeds": [0], "search_seeds": [0]}
    return {**node, "twin": "twin", "methods": methods, **changes}


METHODS = {
    "twin": {"weights": {"ce": 1.0}},
    "kd": {"weights": {"ce": 1.0, "kd": 2.0}, "scale": ["kd"]},
    "kd+idd": {"weights": {"ce": 1.0, "kd": "@kd", "idd": 1.0}, "scale": ["idd"], "options": ["loss.idd.scope=batch"]},
}


def test_weights_of_earlier_methods_are_taken_and_own_ones_scaled() -> None:
    method = read_plan(plan(METHODS)).methods["kd+idd"]
    words = method.overrides({"kd": {"ce": 1.0, "kd": 6.0}}, 0.3)
    assert words == [
        *("loss=[ce,kd,idd]", "loss.ce_weight=1", "loss.kd_weight=6", "loss.idd_weight=0.3"),
        "loss.idd.scope=batch",
    ]


def test_the_study_of_the_page_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    found = read_plan(yaml.safe_load(page.split("```yaml\n")[1].split("```")[0]))
    assert found.methods["kd+idd"].against == "kd+cwd"
    assert found.methods["kd+cwd"].weights["kd"] == "@kd"


def test_some_methods_can_be_chosen() -> None:
    assert list(read_plan(plan(METHODS), ["twin", "kd"]).methods) == ["twin", "kd"]


@pytest.mark.parametrize(
    ("node", "only", "message"),
    [
        (plan(METHODS), ["twin", "kid"], "only=kid.*twin, kd, kd\\+idd"),
        (plan(METHODS), ["twin", "kd+idd"], "only leaves out kd, whose weight kd\\+idd takes; add it"),
        (plan(METHODS), ["kd"], "only leaves out twin, which all are compared with; add it"),
        (plan({"twin": {"weights": {"ce": "@kd"}}}), None, "@NAME of a method that stands before it"),
        (plan({"twin": {"weights": {"ce": "one"}}}), None, "weights.ce=one: give a number"),
        (plan({"twin": {"weights": {"ce": 1.0}, "scale": ["kd"]}}), None, "scale names kd"),
        (plan(METHODS, twin="ce"), None, "study.twin=ce is none of the methods"),
        (plan(METHODS, seeds=[]), None, "at least one number each"),
        (plan({"twin": {"weights": {"ce": 1.0}, "against": "kd"}}), None, "twin.against=kd is none of the other"),
        (plan({"twin": {"weights": {"ce": 1.0}, "against": "twin"}}), None, "twin.against=twin is none of the other"),
    ],
)
def test_plans_that_can_t_be_done_are_refused(node: dict, only: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(node, only)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({**plan(METHODS), "common": None}, "no 'common'; give one, such as common: \\[data=shapes"),
        ({key: value for key, value in plan(METHODS).items() if key != "twin"}, "no 'twin'"),
        (plan(["twin", "kd"]), "study.methods must have a name for each method"),  # type: ignore[arg-type]
        (plan({"twin": ["ce"]}), "study.methods.twin must be written as {weights"),
        (plan({"twin": {"terms": {"ce": 1.0}}}), "study.methods.twin has 'terms', which is none of weights, scale"),
        (plan({"twin": {"weight": {"ce": 1.0}}}), "did you mean 'weights'?"),
        (plan({"twin": {}}), "study.methods.twin needs the terms and their weights"),
        (plan({"twin": {"weights": {"cd": 1.0}}}), "twin.weights: there is no term 'cd'; did you mean"),
        (plan({"twin": {"weights": {"ce": [1.0]}}}), "twin.weights.ce must be a number"),
        (plan({"twin": {"weights": {"ce": 1.0}, "options": "lr=1"}}), "twin.options must be a list"),
    ],
)
def test_a_study_s_file_that_is_written_otherwise_is_refused(node: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_plan(node)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.975, 0.995])
def test_quantiles_of_student_s_t(probability: float, freedom: int) -> None:
    expected = scipy.stats.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_spread_by_hand() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])
    assert (spread.mean, spread.deviation) == (2.0, 1.0)
    assert spread.half_width() == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert Spread.of([5.0]).half_width() is None


def result(miou: float, seconds: float = 10.0, memory: int = 100) -> Result:
    return Result(miou, {}, seconds, memory, None, None)


RESULTS = {
    "twin": {0: result(0.50), 1: result(0.52)},
    "kd": {0: result(0.53, 15, 150), 1: result(0.53, 15, 150), 2: result(0.9)},
}


def test_gains_are_paired_by_seed() -> None:
    assert gains(RESULTS, "kd", "twin") == pytest.approx([3.0, 1.0])


def test_the_table_says_gain_interval_share_and_cost() -> None:
    text = markdown(RESULTS, "twin", 0.61, {"kd": {"ce": 1.0, "kd": 3.0}})
    row = next(line for line in text.splitlines() if line.startswith("| kd"))
    half = 12.706204736 * math.sqrt(2) / math.sqrt(2)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "kd 3"
    assert cells[3] == "3"
    assert cells[4] == "+2.00"
    assert cells[5] == f"{2 - half:+.2f} to {2 + half:+.2f}"
    assert cells[6] == "20 %"
    assert cells[7:] == ["1.50", "1.50"]


def course(*scores: float) -> Result:
    moments = [{"step": i, "miou": s, "seconds": 10.0 * i, "cpu_seconds": 1.0 * i} for i, s in enumerate(scores, 1)]
    return Result(scores[-1], {}, 10.0 * len(scores), 100, None, None, len(scores), 1.0 * len(scores), moments)


@pytest.mark.parametrize(
    ("scores", "share"),
    [((0.3, 0.5, 0.6, 0.7), 0.5), ((0.6, 0.4, 0.5, 0.5), 0.75), ((0.6, 0.6, 0.6, 0.49), None), ((0.5,), 0.25)],
)
def test_the_twins_score_is_reached_when_it_is_kept(scores: tuple[float, ...], share: float | None) -> None:
    results = {"twin": {0: course(0.2, 0.3, 0.4, 0.5)}, "kd": {0: course(*scores), 5: course(0.1)}}
    for clock in ("wall", "cpu"):
        assert to_score(results, "kd", "twin", clock) == [share]
    assert to_score({"twin": {0: result(0.5)}, "kd": {0: result(0.6)}}, "kd", "twin", "wall") is None


def test_the_table_says_how_many_seeds_reach_the_twins_score() -> None:
    twin = course(0.4, 0.5)
    results = {"twin": {0: twin, 1: twin}, "kd": {0: course(0.5, 0.6), 1: course(0.4, 0.4)}, "at": {0: course(0.1)}}
    lines = markdown(results, "twin", None, {}).splitlines()
    last = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in lines}
    assert last["method"] == "to the twin's score"
    assert (last["kd"], last["at"], last["twin"]) == ("0.50 (1 of 2 seeds)", "not reached", "1.00")


def test_the_time_to_the_twins_score_has_an_interval() -> None:
    twin = course(0.2, 0.3, 0.4, 0.5)
    results = {"twin": {0: twin, 1: twin}, "kd": {0: course(0.4, 0.5, 0.6, 0.6), 1: course(0.4, 0.4, 0.5, 0.5)}}
    cells = [line.split(" | ")[-1].strip("| ") for line in markdown(results, "twin", None, {}).splitlines()]
    half = 12.706204736 * math.sqrt(0.03125) / math.sqrt(2)
    assert cells[-2:] == ["1.00", f"0.62 (0.00 to {0.625 + half:.2f})"]


def test_the_share_of_the_gap_is_of_the_seeds_that_both_have() -> None:
    results = {"twin": {0: result(0.50), 1: result(0.58)}, "kd": {0: result(0.55)}}
    row = markdown(results, "twin", 0.60, {}).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")][6] == "50 %"


def test_what_changes_a_method_is_held_against_it() -> None:
    changed = {"kd_2": {1: result(0.56), 2: result(0.88)}, "other": {0: result(0.5)}}
    # `twin` is held against one that `only` has left out.
    text = markdown({**RESULTS, **changed}, "twin", 0.61, {}, against={"kd_2": "kd", "twin": "left out"})
    last = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in text.splitlines()}
    half = 12.706204736 * math.sqrt(12.5) / math.sqrt(2)
    assert last["method"] == "against"
    assert last["kd_2"] == f"kd: +0.50 ({0.5 - half:+.2f} to {0.5 + half:+.2f})"
    assert (last["twin"], last["kd"], last["other"]) == ("", "", "")


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path: Path) -> None:
    # Between dollars it would be read as mathematics, which this is not.
    draw({"twin": {0: result(0.4)}, r"$\frac$": {0: result(0.5)}}, "twin", 0.6, tmp_path / "methods.png")
    assert (tmp_path / "methods.png").stat().st_size > 5_000
    image = np.zeros((4, 4, 3), np.uint8)
    save(sample_rows([(r"$\frac$", [image])], ["ground"], [[0, 0, 0]], [0]), tmp_path / "samples.png")
    assert (tmp_path / "samples.png").stat().st_size > 1_000
