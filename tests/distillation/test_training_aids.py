"""What terms train beside the student (adapters, generators, attention, lifts) leaves no trace in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from idd_seg.distillation.module import Distiller
from idd_seg.losses.afdcd import DenseContrast
from idd_seg.losses.attnfd import AttentionGuided
from idd_seg.losses.idd import InterClassDistance
from idd_seg.losses.mgd import MaskedGeneration
from idd_seg.losses.rmrkd import CrossRelation
from idd_seg.losses.term import Term
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch
from tests.test_weights_over_time import CLASSES, network

TERMS: dict[str, Callable[[], Term]] = {
    "mgd": MaskedGeneration,
    "afdcd": partial(DenseContrast, groups=4),
    "attnfd": AttentionGuided,
    "rmrkd": partial(CrossRelation, CLASSES),
    "idd": partial(InterClassDistance, CLASSES, lift=True),
}


@pytest.mark.parametrize("name", TERMS)
def test_the_student_is_the_same_network_with_and_without(name: str) -> None:
    student, teacher = network(0), FrozenTeacher(network(1, width=4))
    before = {key: value.shape for key, value in student.state_dict().items()}
    module = Distiller(
        student,
        teacher,
        {name: TERMS[name]()},
        partial(torch.optim.SGD, lr=0.01),
        partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    batch = Batch(images, labels, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4), ["x", "y"])
    (term,) = module.each_term().values()
    loss = term.train()(student.train()(images), teacher(images), batch)
    loss.backward()
    assert {key: value.shape for key, value in student.state_dict().items()} == before
    trained = [p for p in term.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained), "DDP wants a gradient for each parameter at each step"
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())
    ours = {id(p) for p in student.parameters()}
    assert not ours & {id(p) for p in term.parameters()}
    assert all(key.startswith(("student.", f"terms.{name}.")) for key in module.state_dict())
