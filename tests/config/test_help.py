"""--help: a screen, and every option with its comment."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from idd_seg.config.groups import known_keys
from idd_seg.config.help import WIDTH, asked, asks_for_help, help_text
from idd_seg.errors import ConfigError


def test_what_is_asked_for() -> None:
    assert asked(["data=voc", "--help"]) == ""
    assert asked(["--help=loss.kd"]) == "loss.kd"
    assert asked(["data=voc"]) is None
    assert asks_for_help(["--help=all", "data=voc"])
    assert not asks_for_help(["--help", "--cfg", "job"])
    assert not asks_for_help(["--hydra-help"])


def test_a_screen_of_a_large_command() -> None:
    lines = help_text("train", ["--help"]).splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("loss=[ce,cwd,kd]") for line in lines)
    assert any(line.startswith("epochs=null") and "# looks at each training picture" in line for line in lines)
    assert any(line.startswith("experiment= ") and line.endswith(" ...") for line in lines)


def test_all_options_are_there_with_their_comments() -> None:
    text = help_text("train", ["--help=all", "data=voc"])
    shown = {line.partition("=")[0]: line for line in text.splitlines()}
    wanted = [key for key in known_keys("train", ["data=voc"]) if "@" not in key and "." in key]
    beginnings = {".".join(name.split(".")[:i]) for name in shown for i in range(1, 9)}
    without = [key for key in wanted if key not in shown and key not in beginnings]
    # What is built without options of its own has no line.
    assert all(re.search(r"\.(_\w+_|progress|weak_teacher|\d+)\b", key) for key in without), without
    assert "# of the training pictures" in shown["data.labelled_share"]
    assert "# share of the auxiliary head's" in shown["teacher.training.loss.ce.auxiliary"]
    assert OmegaConf.create({"x": shown["data.batch_size"].partition("=")[2].partition("#")[0].strip()}).x == "16"


def test_a_part_of_them() -> None:
    lines = help_text("train", ["--help=loss.kd"]).splitlines()
    assert lines
    assert all(line.startswith("loss.kd.") for line in lines)
    group = help_text("train", ["--help=loss"])
    assert "loss=cwd" in group
    assert "# Where each channel looks." in group
    assert "loss.kd.temperature=1.0" in group
    head = help_text("train", ["--help=student.head", "student=r18"])
    assert "head@student.head=aspp" in head
    assert "student.head.bins=" in head


def test_what_has_no_such_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="--help=nope: no option and no group has this name"):
        help_text("train", ["--help=nope"])


def test_many_options_side_by_side_are_one_line() -> None:
    lines = help_text("benchmark", ["--help"]).splitlines()
    (sizes,) = [line for line in lines if line.startswith("picture_sizes")]
    assert sizes.startswith("picture_sizes.NAME=")
    assert "camvid, cityscapes" in sizes
    assert any(line.startswith("step.terms=") for line in lines)  # its neighbours have comments
