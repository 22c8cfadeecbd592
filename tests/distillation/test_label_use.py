"""What terms learn from pictures without labels: what they would learn if the teacher had labelled them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.config.groups import options_of
from idd_seg.config.instantiate import make
from idd_seg.data.pipeline.options import TeacherLabels
from idd_seg.distillation.label_use import Agreement, LabelUse, check_label_use, on_photograph, teacher_classes
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.idd import InterClassDistance
from idd_seg.losses.kd import PixelWise
from idd_seg.losses.term import Term
from idd_seg.models.foreign.class_map import Mapped
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch, Outputs
from tests.config.test_composition import compose

K, SIZE, GRID, LABELLED, ALL = 11, (24, 32), (6, 8), 2, 4
CHANNELS = {"stage1": 16, "stage2": 16, "stage3": 32, "stage4": 48, "head": 16}
NAMES = [name for name in options_of("loss") if name != "every"]


@pytest.fixture(scope="module")
def nodes() -> Any:
    return compose("train", "data=camvid", "data.root=.", f"loss=[{','.join(NAMES)}]").loss


def term(nodes: Any, name: str) -> Term:
    torch.manual_seed(0)
    made: Term = make(nodes[name], name)
    made.bind(CHANNELS, CHANNELS)
    return made.train()


def outputs(seed: int, *, grad: bool = False) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(ALL, K, *GRID, generator=draw) * 3
    features = {name: torch.randn(ALL, width, *GRID, generator=draw) for name, width in CHANNELS.items()}
    if grad:
        logits.requires_grad_()
        for x in features.values():
            x.requires_grad_()
    return Outputs(logits, features)


def hidden(seed: int = 0) -> Batch:
    """A batch whose last pictures have no labels, with padding below the last one, as the loader makes it."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(K, (ALL, 6, 8), generator=draw).repeat_interleave(4, 1).repeat_interleave(4, 2)
    label[0, :5] = 255  # ignored by the truth
    label[LABELLED:] = 0
    label[-1, 18:] = 255
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3 + [[0.0, 0.0, 1.0, 4 / 3]])
    return Batch(torch.randn(ALL, 3, *SIZE, generator=draw), label, box, ["x"] * ALL, labelled=LABELLED)


def labelled(batch: Batch, teacher: Outputs) -> Batch:
    """The same batch, labelled by the teacher's own argmax."""
    full = F.interpolate(teacher.logits, size=SIZE, mode="bilinear", align_corners=False).argmax(1)
    label = batch.label.clone()
    label[LABELLED:] = torch.where(label[LABELLED:] == 255, 255, full[LABELLED:])
    return replace(batch, label=label, labelled=None)


def use(kind: str = "unlabelled", confidence: float = 0.0) -> LabelUse:
    return LabelUse(TeacherLabels(use=kind, confidence=confidence), 255, unlabelled=True)  # type: ignore[arg-type]


def gradients(made: Term, use: LabelUse, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    student, teacher = outputs(1, grad=True), outputs(2)
    seen = use.of_step(student, teacher, batch).of(made)
    torch.manual_seed(5)
    made.update(*seen)
    made(*seen)  # a memory has something to be compared with from then on
    loss = made(*seen)
    leaves = [student.logits, *student.features.values()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return loss.detach(), [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_hidden_labels_give_the_gradients_of_the_teachers_own(name: str, nodes: Any) -> None:
    made, other = term(nodes, name), term(nodes, name)
    batch = hidden()
    truth = labelled(batch, outputs(2))
    if made.label_use == "truth":
        first = {"image", "label", "box", "names"}
        truth = replace(batch, **{key: getattr(batch, key)[:LABELLED] for key in first}, labelled=None)
        student, teacher = outputs(1, grad=True), outputs(2)
        loss = other(Outputs(student.logits[:LABELLED], {}), Outputs(teacher.logits[:LABELLED], {}), truth)
        wanted = torch.autograd.grad(loss, student.logits)[0]
        value, (found, *_) = gradients(made, use(), batch)
        torch.testing.assert_close(value, loss.detach(), rtol=0, atol=0)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        assert not found[LABELLED:].any()
        assert found[:LABELLED].any()
        return
    value, found = gradients(made, use(), batch)
    wanted_value, wanted_gradients = gradients(other, use(), truth)
    torch.testing.assert_close(value, wanted_value, rtol=0, atol=0)
    for ours, theirs in zip(found, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    if name != "position":  # which waits for its reader
        assert any(g[LABELLED:].any() for g in found), "nothing was learnt from pictures without labels"


@pytest.mark.parametrize("name", NAMES)
def test_without_the_teachers_classes_such_terms_see_labelled_pictures_alone(name: str, nodes: Any) -> None:
    made = term(nodes, name)
    if made.label_use != "classes":
        student, teacher, batch = outputs(1), outputs(2), hidden()
        kept = use("none").of_step(student, teacher, batch).of(made)[2]
        assert len(kept.label) == (ALL if made.label_use == "none" else LABELLED)
        return
    _, found = gradients(made, use("none"), hidden())
    assert not any(g[LABELLED:].any() for g in found)


def test_pixels_of_low_confidence_are_ignored() -> None:
    teacher, batch = outputs(2), hidden()
    full = F.interpolate(teacher.logits, size=SIZE, mode="bilinear", align_corners=False).softmax(1)
    views = use(confidence=0.7).of_step(outputs(1), teacher, batch)
    found = views.of(InterClassDistance(K))[2].label
    wanted = torch.where(full.amax(1) >= 0.7, full.argmax(1), 255)
    wanted[-1, 18:] = 255
    assert torch.equal(found[LABELLED:], wanted[LABELLED:])
    assert torch.equal(found[:LABELLED], batch.label[:LABELLED])
    assert views.confident is not None
    taken, asked = (int(x) for x in views.confident)
    assert asked == 24 * 32 + 18 * 32
    assert taken == int((wanted[LABELLED:] != 255).sum())
    assert 0 < taken < asked


def test_all_also_fills_what_the_truth_ignores_and_no_padding() -> None:
    teacher, batch = outputs(2), hidden()
    batch.box[1] = torch.tensor([0.0, 0.0, 2.0, 1.0])  # the right half is padding
    batch.label[1, :, 16:] = 255
    found = use("all").of_step(outputs(1), teacher, batch).of(InterClassDistance(K))[2].label
    classes = teacher_classes(teacher.logits, SIZE, 0.0, 255)
    assert torch.equal(found[0, :5], classes[0, :5])
    assert torch.equal(found[0, 5:], batch.label[0, 5:])
    assert torch.equal(found[1], batch.label[1])
    assert torch.equal(found[2], classes[2])
    assert (found[-1, 18:] == 255).all()


def test_all_needs_no_pictures_without_labels() -> None:
    teacher, batch = outputs(2), replace(hidden(), labelled=None)
    filled = LabelUse(TeacherLabels(use="all", confidence=0.0), 255, unlabelled=False)
    found = filled.of_step(outputs(1), teacher, batch).of(InterClassDistance(K))[2].label
    assert (found[0] != 255).all()
    assert torch.equal(found[2], batch.label[2])


def test_where_all_have_labels_terms_see_the_batch_itself() -> None:
    student, teacher, batch = outputs(1), outputs(2), replace(hidden(), labelled=None)
    plain = LabelUse(TeacherLabels(), 255, unlabelled=False)
    for made in (CrossEntropy(), PixelWise(), InterClassDistance(K)):
        seen = plain.of_step(student, teacher, batch).of(made)
        assert seen[0] is student
        assert seen[2] is batch


def test_the_photograph_of_a_box() -> None:
    inside = on_photograph(torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, -1.0, 2.0]]), (4, 4))
    assert inside[0].all()
    assert inside[1].tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2


def test_a_teacher_of_another_label_set_labels_in_the_datas_classes() -> None:
    class Theirs(nn.Module):
        num_classes, channels = 3, CHANNELS

        def forward(self, image: Tensor) -> Outputs:
            # "wood" is the likeliest of their classes everywhere, and "grass" and "moss" together are likelier.
            logits = torch.tensor([0.4, 0.35, 0.25]).log()[None, :, None, None].expand(len(image), 3, *GRID)
            return Outputs(logits, {})

    teacher = FrozenTeacher(Mapped(Theirs(), [["grass", "moss"], "wood"], ["green", "tree"], ["wood", "grass", "moss"]))
    batch = hidden()
    found = use(confidence=0.59).of_step(outputs(1), teacher(batch.image), batch).of(InterClassDistance(2))[2].label
    assert (found[2] == 0).all()
    sure = use(confidence=0.61).of_step(outputs(1), teacher(batch.image), batch).of(InterClassDistance(2))[2].label
    assert (sure[2] == 255).all()


def test_how_often_the_confident_classes_are_right() -> None:
    agreement = Agreement()
    found = torch.tensor([[[0, 1, 255, 2]]])
    agreement.update(found, torch.tensor([[[0, 2, 1, 255]]]), 255)
    agreement.update(found, torch.tensor([[[0, 1, 1, 2]]]), 255)
    values = agreement.compute(torch.device("cpu"))
    assert values == {"confident": 5 / 7, "confident_right": 4 / 5}
    assert math.isnan(agreement.compute(torch.device("cpu"))["confident"])


@pytest.mark.parametrize(
    ("terms", "share", "kind", "has_teacher", "message"),
    [
        (["ce"], 0.5, "unlabelled", False, "data.unlabelled needs a teacher to learn from, and teacher=none"),
        (["ce"], 0.5, "unlabelled", True, "no term of loss=[ce] learns from pictures without labels"),
        (["ce", "idd"], 0.5, "none", True, "add one that does, e.g. kd, or data.teacher_labels.use=unlabelled"),
        (["ce", "kd"], 1, "unlabelled", True, "leaves no picture with labels, and loss=ce learns from such alone"),
        (["idd", "kd"], 1, "none", True, "leaves no picture with labels, and loss=idd learns"),
        (["ce"], 0, "all", False, "data.teacher_labels.use=all needs a teacher"),
    ],
)
def test_what_would_teach_nothing_is_refused(
    terms: list[str], share: float, kind: Any, has_teacher: bool, message: str
) -> None:
    known: dict[str, Term] = {"ce": CrossEntropy(), "kd": PixelWise(), "idd": InterClassDistance(K)}
    with pytest.raises(ConfigError) as caught:
        check_label_use({name: known[name] for name in terms}, TeacherLabels(use=kind), share, has_teacher=has_teacher)
    assert message in str(caught.value)


def test_what_teaches_something_is_not() -> None:
    terms: dict[str, Term] = {"ce": CrossEntropy(), "kd": PixelWise()}
    check_label_use(terms, TeacherLabels(), 0.5, has_teacher=True)
    check_label_use({"kd": PixelWise()}, TeacherLabels(), 1, has_teacher=True)
    check_label_use({"ce": copy.deepcopy(terms["ce"])}, TeacherLabels(), 0, has_teacher=False)
