"""A frozen teacher stays as it is, whatever is done to the module it stands in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher

Build = Callable[..., Segmenter]


class Pair(nn.Module):
    """What the LightningModule is to its teacher."""

    def __init__(self, student: Segmenter, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher


@pytest.fixture
def pair(tiny_segmenter: Build) -> Pair:
    return Pair(tiny_segmenter(), FrozenTeacher(tiny_segmenter(seed=1), {"path": "a.ckpt", "sha256": "0"}))


def memory(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def test_training_mode_does_not_reach_it(pair: Pair) -> None:
    for call in (pair.train, pair.teacher.train, lambda: pair.train(False).train(True)):
        call()
        assert pair.student.training
        assert not any(module.training for module in pair.teacher.modules())


def test_no_buffer_changes_by_a_forward_pass_in_training(pair: Pair) -> None:
    pair.train()
    before, image = memory(pair.teacher), torch.randn(2, 3, 64, 64)
    pair.student(image)
    pair.teacher(image)
    after = memory(pair.teacher)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any("running_mean" in name for name in before)


def test_it_may_see_smaller_pictures(tiny_segmenter: Build) -> None:
    network, image = tiny_segmenter(seed=1).eval(), torch.randn(2, 3, 64, 96)
    smaller = F.interpolate(image, (32, 48), mode="bilinear", align_corners=False, antialias=True)
    with torch.no_grad():
        expected = network(smaller).logits
    assert torch.equal(FrozenTeacher(network, scale=0.5)(image).logits, expected)
    assert torch.equal(FrozenTeacher(network)(smaller).logits, expected)


def test_a_step_of_the_parents_optimizer_changes_nothing(pair: Pair) -> None:
    before, image = memory(pair.teacher.network), torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.SGD(pair.train().parameters(), lr=1.0, weight_decay=0.1)
    (pair.student(image).logits - pair.teacher(image).logits).square().mean().backward()
    optimizer.step()
    assert all(p.grad is None for p in pair.teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in memory(pair.teacher.network).items())


def test_its_outputs_carry_no_gradient(pair: Pair) -> None:
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    found = pair.train().teacher(image)
    assert not any(p.requires_grad for p in pair.teacher.parameters())
    assert not found.logits.requires_grad
    assert not any(map_.requires_grad for map_ in found.features.values())
    assert found.auxiliary is None


def test_it_gives_what_its_network_gives_in_evaluation(pair: Pair, tiny_segmenter: Build) -> None:
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = tiny_segmenter(seed=1).eval()(image)
    assert torch.equal(pair.train().teacher(image).logits, expected.logits)
    assert pair.teacher.channels == tiny_segmenter().channels


def test_no_checkpoint_holds_it(pair: Pair) -> None:
    state = pair.state_dict()
    assert state.keys() == {f"student.{name}" for name in pair.student.state_dict()}
    assert pair.teacher.state_dict() == {}
    assert pair.teacher.source == {"path": "a.ckpt", "sha256": "0"}


def test_it_moves_with_its_parent(pair: Pair) -> None:
    pair.double()
    assert {p.dtype for p in pair.teacher.parameters()} == {torch.float64}
