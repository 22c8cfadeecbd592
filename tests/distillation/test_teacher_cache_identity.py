"""The teacher's outputs are kept apart where they would be others: another reading of the same file, other pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from idd_seg.data.shapes import Shapes
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.runs import assemble
from tests.config.test_composition import compose
from tests.test_training import network, shapes

FOREIGN = ("data=camvid", "data.root=/nowhere", "teacher=mmseg_pspnet_r101", "teacher_cache=disk")


def identity(*options: str, pictures: int = 10) -> str:
    data: Shapes = shapes()
    data.lengths["train"] = pictures
    data.frozen_epochs = 2
    cfg = compose("train", *FOREIGN, "data.frozen_epochs=2", *options)
    teacher = FrozenTeacher(network(8), {"path": "teacher.pth", "sha256": "0"})
    return assemble.cache_of(cfg, data, {}, teacher).identity


@pytest.mark.parametrize(
    "option",
    [
        "+teacher.class_map={road: [0]}",
        "teacher.model.input.order=bgr",
        "teacher.model.input.mean=[0,0,0]",
        "trainer.precision=bf16-mixed",
        "speed=fast",
        "data.augment.crop=[64,64]",
        "seed=4",  # of the augmentation
        "teacher.scale=0.5",
    ],
)
def test_what_changes_the_outputs_is_kept_apart(option: str) -> None:
    assert identity(option) != identity()


@pytest.mark.parametrize(
    "option",
    [
        *("data.num_workers=7", "trainer.max_steps=9", "student=mbv2", "name=mine"),
        *("teacher.every_n_steps=2", "teacher.start=1", "teacher.stop=2"),
    ],
)
def test_what_changes_nothing_shares(option: str) -> None:
    assert identity(option) == identity()


def test_other_pictures_are_kept_apart() -> None:
    """A picture more, and all behind it would be taken for others."""
    assert identity(pictures=9) != identity(pictures=10)


def test_other_pictures_without_labels_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")

    def with_more() -> str:
        data = shapes(unlabelled="*.png")
        cfg = compose("train", *FOREIGN, "data.frozen_epochs=2")
        data.frozen_epochs = 2
        return assemble.cache_of(cfg, data, {}, FrozenTeacher(network(8), {"path": "x", "sha256": "0"})).identity

    first = with_more()
    assert with_more() == first
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    assert with_more() != first
