"""The checkpoints of this program: read back exactly, refused when they are of another kind or network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from idd_seg.checkpoints.reader import read_checkpoint
from idd_seg.errors import CheckpointError
from idd_seg.models.segmenter import Segmenter
from tests.conftest import TINY

Build = Callable[..., Segmenter]
CARD = {"format": 1, "class_names": ["ground", "spark"], "config": {"student": {"backbone": "resnet18"}, "seed": 1}}


def save(path: Path, student: Segmenter, **content: Any) -> Path:
    weights = {f"student.{name}": value for name, value in student.state_dict().items()}
    weights["terms.kd.adapter.weight"] = torch.zeros(1)
    torch.save({"state_dict": weights, "idd_seg": CARD, "epoch": 3, **content}, path)
    return path


def test_a_student_comes_back_without_its_auxiliary_head(tmp_path: Path, tiny_segmenter: Build) -> None:
    student = tiny_segmenter().eval()
    path = save(tmp_path / "a b.ckpt", student)
    saved, again = read_checkpoint(path), tiny_segmenter(seed=9, auxiliary=False).eval()
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        assert not torch.equal(again(image).logits, student(image).logits)
        saved.load_into(again, "student")
        assert torch.equal(again(image).logits, student(image).logits)
    assert saved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert saved.path == path


def test_the_card_says_classes_and_configuration(tmp_path: Path, tiny_segmenter: Build) -> None:
    saved = read_checkpoint(save(tmp_path / "a.ckpt", tiny_segmenter()))
    assert saved.class_names == ["ground", "spark"]
    assert saved.config("student") == {"backbone": "resnet18"}


@pytest.mark.parametrize("card", [{"format": 1}, {"format": 1, "config": None}, CARD], ids=["none", "null", "other"])
def test_a_configuration_that_it_does_not_hold_is_named(
    tmp_path: Path, tiny_segmenter: Build, card: dict[str, Any]
) -> None:
    saved = read_checkpoint(save(tmp_path / "a.ckpt", tiny_segmenter(), idd_seg=card))
    with pytest.raises(CheckpointError, match=r"a\.ckpt' does not say what its seed was"):
        saved.config("seed")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"num_classes": 6}, r"classifier\.1\.weight is \(5, 16, 1, 1\) instead of \(6, 16, 1, 1\)"),
        ({"options": {**TINY, "channels": [8, 16, 32, 48]}}, r"instead of \(48, .* and \d+ more"),
        ({"options": {**TINY, "layers": [1, 1, 1, 2]}}, r"backbone\.net\.layer4\.1\.conv1\.weight is missing"),
        ({"options": {**TINY, "stem_type": ""}}, r"backbone\.net\.conv1\.weight is missing"),
        ({"backbone": "mobilenetv2_100", "options": {}}, r"backbone\.net\.conv_stem\.weight is missing"),
    ],
)
def test_the_differences_to_another_network_are_named(
    tmp_path: Path, tiny_segmenter: Build, changes: dict[str, Any], difference: str
) -> None:
    saved = read_checkpoint(save(tmp_path / "a.ckpt", tiny_segmenter()))
    other = tiny_segmenter(auxiliary=False, **changes)
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(CheckpointError, match=rf"a\.ckpt' is of another network than the teacher: .*{difference}"):
        saved.load_into(other, "teacher")
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_layers_that_the_network_does_not_have_are_named(tmp_path: Path, tiny_segmenter: Build) -> None:
    larger = tiny_segmenter(options={**TINY, "layers": [1, 1, 1, 2]})
    saved = read_checkpoint(save(tmp_path / "a.ckpt", larger))
    with pytest.raises(CheckpointError, match=r"backbone\.net\.layer4\.1\.conv1\.weight is not known"):
        saved.load_into(tiny_segmenter(auxiliary=False), "student")


@pytest.mark.parametrize("format_", [2, 0, None, "1"])
def test_another_format_is_refused(tmp_path: Path, tiny_segmenter: Build, format_: Any) -> None:
    path = save(tmp_path / "a.ckpt", tiny_segmenter(), idd_seg={**CARD, "format": format_})
    with pytest.raises(CheckpointError, match=rf"a\.ckpt' has format {format_}; this program reads format 1"):
        read_checkpoint(path)


@pytest.mark.parametrize("changes", [{"idd_seg": None}, {"idd_seg": [1]}, {"state_dict": None}, {"state_dict": [1]}])
def test_a_checkpoint_of_another_program_is_refused(
    tmp_path: Path, tiny_segmenter: Build, changes: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"a\.ckpt' is not a checkpoint of idd_seg\.train"):
        read_checkpoint(save(tmp_path / "a.ckpt", tiny_segmenter(), **changes))


@pytest.mark.parametrize("weights", [{}, {3: torch.zeros(1)}, {"student.backbone": "text"}], ids=str)
def test_weights_that_are_none_are_refused(tmp_path: Path, tiny_segmenter: Build, weights: dict[Any, Any]) -> None:
    path = save(tmp_path / "a.ckpt", tiny_segmenter(), state_dict=weights)
    with pytest.raises(CheckpointError, match=r"a\.ckpt"):
        read_checkpoint(path).load_into(tiny_segmenter(auxiliary=False), "student")


def test_a_value_that_is_no_tensor_is_refused(tmp_path: Path, tiny_segmenter: Build) -> None:
    student = tiny_segmenter()
    weights: dict[str, Any] = {f"student.{name}": value for name, value in student.state_dict().items()}
    weights["student.classifier.1.bias"] = [0.0] * 5
    saved = read_checkpoint(save(tmp_path / "a.ckpt", student, state_dict=weights))
    with pytest.raises(CheckpointError, match=r"classifier\.1\.bias"):
        saved.load_into(tiny_segmenter(auxiliary=False), "student")
