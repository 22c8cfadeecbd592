"""Hydra's sweep syntax, read as what Optuna draws."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from idd_seg.errors import ConfigError
from idd_seg.sweeps.space import Space, read_space


def space(*options: str) -> Space:
    return read_space(OverridesParser.create().parse_overrides(list(options)))


READINGS = {
    "a=interval(0.1,1)": FloatDistribution(0.1, 1.0),
    "a=interval(1,8)": FloatDistribution(1.0, 8.0),
    "a=int(interval(1,8))": IntDistribution(1, 8),
    "a=tag(log,interval(0.1,1))": FloatDistribution(0.1, 1.0, log=True),
    "a=range(1,8,2)": IntDistribution(1, 7, step=2),
    "a=range(8,1,-3)": IntDistribution(2, 8, step=3),
    "a=tag(log,range(1,9))": IntDistribution(1, 8, log=True),
    "a=range(0.0,0.5,0.1)": FloatDistribution(0.0, 0.4, step=0.1),
    "a=choice(r18,r34)": CategoricalDistribution(["r18", "r34"]),
    "a=1,2.5,true,null": CategoricalDistribution([1, 2.5, True, "null"]),
    "a=[ce],[ce,kd]": CategoricalDistribution(["[ce]", "[ce,kd]"]),
}


@pytest.mark.parametrize("option", READINGS)
def test_reading(option: str) -> None:
    assert space(option).searched == {"a": READINGS[option]}


WRONG = ["a=range(3,3)", "a=tag(log,range(1,9,2))", "a=tag(log,choice(1,2))", "a=interval(2,1)", "a=tag(x,range(1,3))"]


@pytest.mark.parametrize("option", WRONG)
def test_what_can_not_be_drawn_is_refused_by_its_text(option: str) -> None:
    with pytest.raises(ConfigError, match=r"^'a="):
        space(option)


def test_the_command_line_takes_the_place_of_the_file() -> None:
    made = space("a=interval(0,1)", "b=interval(0,1)", "c=1", "a=3", "b=choice(1,2)")
    assert made.searched == {"b": CategoricalDistribution([1, 2])}
    assert made.overrides({"b": 2}) == ["a=3", "c=1", "b=2"]


def test_overrides_are_read_back_as_they_were() -> None:
    made = space("a=[ce],[ce,kd]", "b='x y','z'", "c=null,1e-5", "~d", "+e=1")
    for options in made.samples():
        OverridesParser.create().parse_overrides(options)
    values = [override.value() for override in OverridesParser.create().parse_overrides(made.samples()[1])]
    assert values == [None, 1, ["ce", "kd"], "z", 1e-5]


def test_samples_name_every_choice() -> None:
    samples = space("student=r18,r34,mbv2", "lr=interval(0.1,1)").samples()
    assert samples == [[f"student={name}", "lr=0.1"] for name in ("r18", "r34", "mbv2")]


def test_a_grid_lists_every_value() -> None:
    assert space("a=range(0,1,0.25)", "b=2,4", "c=range(1,4)").grid() == {
        "a": [0.0, 0.25, 0.5, 0.75],
        "b": [2, 4],
        "c": [1, 2, 3],
    }
    with pytest.raises(ConfigError, match="can't try all of 'a'"):
        space("a=interval(0,1)").grid()
