"""Options of a wrong type are told by their names, whatever constructor would have got them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from idd_seg.config.option_types import check_types, fits, words
from idd_seg.data.augment import Augmentation
from idd_seg.errors import ConfigError
from tests.config.test_composition import CHOICES, compose

FITTING: list[tuple[Any, Any]] = [
    (int, 3),
    (float, 3),
    (float, 0.5),
    (bool, True),
    (str, "x"),
    (None, None),
    (type(None), None),
    (Path, "a/b"),
    (int | None, None),
    (Sequence[int], [1, 2]),
    (Sequence[int], []),
    (list[float], [1, 2.5]),
    (tuple[int, int], [1, 2]),
    (tuple[int, ...], [1, 2, 3]),
    (Mapping[int, int], {1: 2}),
    (dict, {}),
    (Literal["a", "b"], "b"),
    (Any, 3j),
    (Sequence[Sequence[int]], [[1], [2, 3]]),
    (Augmentation | None, None),
    (Augmentation, {"_target_": "x"}),
]
OTHERS: list[tuple[Any, Any, str]] = [
    (int, 3.0, "a whole number"),
    (int, True, "a whole number"),
    (float, "3", "a number"),
    (float | None, "x", "a number or null"),
    (bool, 1, "true or false"),
    (str, 3, "a word"),
    (None, 0, "null"),
    (Sequence[int], "12", "a list of whole numbers"),
    (Sequence[str], ["a", 1], "a list of words"),
    (tuple[int, int], [1], "a list of 2 whole numbers"),
    (Sequence[Sequence[int]], [1], "a list of lists of whole numbers"),
    (Mapping[str, int], [1], "a group of options"),
    (Literal["a", "b"], "c", "a or b"),
    (Augmentation | None, "none", "a group of options with a _target_ or null"),
    (Augmentation | None, {"crop": [1, 1]}, "a group of options with a _target_ or null"),
]


@pytest.mark.parametrize(("hint", "value"), FITTING, ids=str)
def test_what_fits(hint: Any, value: Any) -> None:
    assert fits(value, hint)


@pytest.mark.parametrize(("hint", "value", "said"), OTHERS, ids=str)
def test_what_does_not(hint: Any, value: Any, said: str) -> None:
    assert not fits(value, hint)
    assert words(hint) == said


def test_of_classes_of_others_nothing_is_known() -> None:
    assert fits("anything", OmegaConf)


def test_an_option_of_a_base_class_and_of_a_part_is_named() -> None:
    node = compose("train", "data=camvid", "data.root=x").data
    for option, value in (("image_scale", "half"), ("augment.crop", 500), ("recipe", 3)):
        changed = OmegaConf.merge(node, {})
        OmegaConf.update(changed, option, value)
        if option == "recipe":
            check_types(changed, "data")
        else:
            with pytest.raises(ConfigError, match=rf"data\.{option} must be .*, got '{value}'"):
                check_types(changed, "data")


@pytest.mark.parametrize(
    ("group", "choice"), [c for c in CHOICES if c[0] in ("student", "loss", "balance", "optimizer")]
)
def test_every_choice_is_of_the_right_types(group: str, choice: str) -> None:
    cfg = compose("train", f"{group}={choice}")
    check_types(cfg[group], group)
