"""Lengths of a training that follow from the number of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from idd_seg.config.from_python import composed
from idd_seg.config.lengths import settle_lengths, steps_for
from idd_seg.config.teacher_plan import teacher_config
from tests.data import layouts
from tests.helpers import clean_error, run_here

PICTURES = len(layouts.OWN_NAMES["train"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return layouts.own(tmp_path)


def settled(folder: Path, *words: str, processes: int = 1) -> DictConfig:
    root = f"data.root='{folder}'"
    with composed(["data=folder", root, "pretrained=false", *words]) as cfg:
        settle_lengths(cfg, lambda: processes)
        OmegaConf.resolve(cfg.trainer)
        return cfg


@pytest.mark.parametrize(
    ("pictures", "batch", "steps"),
    [
        (0, 8, 2000),
        (100, 8, 2000),
        (160, 8, 2000),
        (161, 8, 2013),
        (1120, 16, 7000),
        (6400, 16, 40000),
        (10**6, 16, 40000),
    ],
)
def test_a_hundred_looks_at_each_picture(pictures: int, batch: int, steps: int) -> None:
    assert steps_for(pictures, batch) == steps


def test_a_folder_chooses_the_length_of_teacher_and_student(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settled(folder, processes=4)
    assert (cfg.trainer.max_steps, cfg.teacher.training.max_steps, cfg.trainer.val_check_interval) == (2000, 2000, 200)
    said = capsys.readouterr().out
    seen = round(2000 * 16 / PICTURES)
    assert f"data.recipe.max_steps=2000: each of {PICTURES} pictures is seen {seen} times, 16 a step, the least" in said


@pytest.mark.parametrize(
    ("words", "student", "teacher", "every"),
    [
        (["trainer.max_steps=30"], 30, 2000, 3),
        (["data.recipe.max_steps=30"], 30, 30, 3),
        (["trainer.max_steps=5", "teacher.training.max_steps=7"], 5, 7, 1),
        (["data.recipe.val_every=11"], 2000, 2000, 11),
        (["epochs=16", "data.batch_size=4"], 4 * PICTURES, 2000, 4 * PICTURES // 10),
        (["trainer.val_check_interval=0.5"], 2000, 2000, 0.5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_given_stays(folder: Path, words: list[str], student: int, teacher: int, every: float) -> None:
    cfg = settled(folder, *words)
    assert (cfg.trainer.max_steps, cfg.teacher.training.max_steps, cfg.trainer.val_check_interval) == (
        student,
        teacher,
        every,
    )


@pytest.mark.parametrize(
    ("words", "every"),
    [
        ([], 200),
        (["epochs=3"], 200),
        (["trainer.max_steps=30"], 200),
        (["teacher.training.max_steps=70"], 7),
        (["teacher.training.max_steps=many"], 200),
        (["trainer.val_check_interval=11"], 11),
        (["trainer.val_check_interval=0.5"], 0.5),
        (["data.recipe.val_every=11", "trainer.max_steps=30"], 11),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_teacher_is_validated_ten_times_however_short_its_student(
    folder: Path, words: list[str], every: float
) -> None:
    assert teacher_config(settled(folder, "teacher.checkpoint=auto", *words)).trainer.val_check_interval == every


def test_epochs_count_over_all_processes_and_without_what_has_no_labels(folder: Path) -> None:
    assert settled(folder, "epochs=40", "data.batch_size=2", processes=4).trainer.max_steps == 5 * PICTURES


def test_any_data_set_may_leave_its_length_open() -> None:
    words = ["data=shapes", "data.recipe.max_steps=auto", "data.train_length=1000", "data.batch_size=8", "loss=ce"]
    with composed(words) as cfg:
        settle_lengths(cfg, lambda: 1)
        assert cfg.trainer.max_steps == 100 * 1000 // 8


def test_missing_data_are_left_to_whoever_looks_at_them(tmp_path: Path) -> None:
    words = ["data=voc", f"data.root='{tmp_path}/none'", "data.recipe.max_steps=auto", "teacher=none", "loss=ce"]
    with composed(words) as cfg:
        settle_lengths(cfg, lambda: 1)
        assert type(cfg.trainer.max_steps) is int
    said = clean_error(run_here("train", *words, "pretrained=false", cwd=tmp_path))
    assert "python -m idd_seg.prepare data=voc fetches" in said
