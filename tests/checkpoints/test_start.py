"""A student that begins where another one has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from idd_seg.checkpoints.reader import Saved
from idd_seg.checkpoints.start import start_from
from idd_seg.errors import CheckpointError
from idd_seg.models.segmenter import Segmenter

Build = Callable[..., Segmenter]
NAMES = ["road", "sky", "tree", "car", "door"]


def saved(network: Segmenter, names: Sequence[str] | None = NAMES) -> Saved:
    weights = {f"student.{name}": value.clone() for name, value in network.state_dict().items()}
    return Saved(Path("a.ckpt"), weights, {} if names is None else {"class_names": list(names)}, "0")


def test_the_same_classes_give_the_same_network(tiny_segmenter: Build) -> None:
    before, student = tiny_segmenter(seed=1), tiny_segmenter(seed=2)
    assert start_from(student, saved(before), NAMES) == "the student begins from 'a.ckpt'"
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in before.state_dict().items())


def test_classes_are_taken_by_their_names(tiny_segmenter: Build) -> None:
    before, student = tiny_segmenter(seed=1), tiny_segmenter(seed=2, num_classes=4)
    drawn = {name: value.clone() for name, value in student.state_dict().items()}
    said = start_from(student, saved(before), ["car", "window", "road", "bus"])
    assert said.endswith("of its classes 2 are taken by their names, and 2 are new: window, bus")
    theirs, ours = before.state_dict(), student.state_dict()
    for key in ("classifier.1.weight", "classifier.1.bias", "auxiliary.1.1.weight", "auxiliary.1.1.bias"):
        assert torch.equal(ours[key][[0, 2]], theirs[key][[3, 0]])
        assert torch.equal(ours[key][[1, 3]], drawn[key][[1, 3]])
    assert all(
        torch.equal(ours[k], v) for k, v in theirs.items() if k.startswith(("backbone.", "head.", "auxiliary.0."))
    )


def test_another_order_is_put_right(tiny_segmenter: Build) -> None:
    before, student = tiny_segmenter(seed=1).eval(), tiny_segmenter(seed=2).eval()
    start_from(student, saved(before), NAMES[::-1])
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(student(image).logits, before(image).logits.flip(1))


def test_an_auxiliary_head_that_only_one_has_is_no_hindrance(tiny_segmenter: Build) -> None:
    for one, other in ((True, False), (False, True)):
        before, student = tiny_segmenter(seed=1, auxiliary=one), tiny_segmenter(seed=2, auxiliary=other)
        start_from(student, saved(before), NAMES)
        assert torch.equal(before.classifier[1].weight, student.classifier[1].weight)


def test_another_network_is_told_by_its_differences(tiny_segmenter: Build) -> None:
    other = tiny_segmenter(
        options={"stem_type": "deep", "stem_width": 4, "channels": [4, 8, 16, 32], "layers": [1] * 4}
    )
    with pytest.raises(
        CheckpointError, match=r"init_from='a\.ckpt' is of another network than the student: .* instead of .*student="
    ):
        start_from(tiny_segmenter(), saved(other), NAMES)


def test_a_file_must_say_what_its_classes_are(tiny_segmenter: Build) -> None:
    with pytest.raises(CheckpointError, match="does not say what its classes are"):
        start_from(tiny_segmenter(), saved(tiny_segmenter(), None), NAMES)
