"""The table of students tells what is there, and its numbers are those of the networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from idd_seg.benchmarks.networks import flops, strides
from idd_seg.config.instantiate import make_student
from idd_seg.models.segmenter import count_parameters
from tests.config.test_composition import CONF, compose

PAGE = (Path(__file__).parents[2] / "docs" / "students.md").read_text(encoding="utf-8")
SHAPE = (1, 3, 512, 512)


def rows(heading: str) -> dict[str, list[str]]:
    """Return the cells of a table's rows, by the name in the first one."""
    table = PAGE.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]
    return {line[0].strip("`"): line[1:] for line in lines}


def numbers(network: nn.Module) -> list[str]:
    return [f"{count_parameters(network) / 1e6:.2f}", f"{flops(network, SHAPE) / 1e9:.1f}"]


STUDENTS, HEADS = rows("student"), rows("head")


def quick(name: str, few: set[str]) -> Any:
    return pytest.param(name, marks=() if name in few else pytest.mark.slow)


@pytest.mark.parametrize(("heading", "group"), [("student", "student"), ("head", "head")])
def test_every_choice_has_a_row(heading: str, group: str) -> None:
    assert set(rows(heading)) == {path.stem for path in (CONF / group).glob("*.yaml")}


@pytest.mark.parametrize("name", [quick(name, {"r18_half", "mbv3_small", "segformer_b0"}) for name in STUDENTS])
def test_a_student_is_as_its_row_says(name: str) -> None:
    cfg = compose("train", "data=voc", f"student={name}", "pretrained=false")
    network = make_student(cfg).eval()
    _, head, levels, *counted, _ = STUDENTS[name]
    assert levels == ", ".join(map(str, strides(network) or []))
    assert counted == numbers(network)
    assert head.strip("`") == re.sub(r".*\.", "", type(network.head).__module__)


@pytest.mark.parametrize("head", [quick(name, {"psp", "upernet"}) for name in HEADS])
@pytest.mark.parametrize(("student", "column"), [("r18", -2), ("mbv2", -1)])
def test_a_head_costs_what_its_row_says(head: str, student: str, column: int) -> None:
    cfg = compose("train", "data=voc", f"student={student}", f"head@student.head={head}", "pretrained=false")
    assert HEADS[head][column].split(", ") == numbers(make_student(cfg).eval())
