"""Cross relations and masked channels: values by hand, literal references, gradients, labels, the term's parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.rmrkd import CrossRelation, channels_inside_and_outside, cross_relation
from tests.losses.reference import log_softmax
from tests.losses.scenes import batch_of, descend, is_zero_with_gradient, outputs_of, random_features, random_labels

NONE = {"relation_weight": 0.0, "generation_weight": 0.0, "inside_weight": 0.0, "outside_weight": 0.0}
Place = tuple[int, int]


def divergence(student: list[float], teacher: list[float]) -> float:
    if not student:
        return 0.0
    log_s, log_t = log_softmax(student), log_softmax(teacher)
    return sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True))


def classes_of(labels: Tensor, h: int, w: int, num_classes: int) -> dict[Place, int]:
    height, width = labels.shape
    read = {(i, j): int(labels[i * height // h, j * width // w]) for i in range(h) for j in range(w)}
    return {place: k for place, k in read.items() if 0 <= k < num_classes}


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def relation_reference(student: Tensor, teacher: Tensor, labels: Tensor, num_classes: int, temperature: float) -> float:
    losses = []
    for image in range(len(student)):
        places = classes_of(labels[image], *student.shape[-2:], num_classes)
        ours, theirs = ({p: x[image][:, p[0], p[1]].tolist() for p in places} for x in (student, teacher))
        for k in sorted(set(places.values())):
            own = [p for p, label in places.items() if label == k]
            others = [p for p, label in places.items() if label != k]
            total = 0.0
            for side in (ours, theirs):
                prototype = [sum(values) / len(own) for values in zip(*(side[p] for p in own), strict=True)]
                for region in (own, others):
                    s = [cosine(prototype, ours[p]) / temperature for p in region]
                    t = [cosine(prototype, theirs[p]) / temperature for p in region]
                    total += divergence(s, t)
            losses.append(temperature**2 * total / 4)
    return sum(losses) / len(losses) if losses else 0.0


def channel_reference(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    n, k, h, w = student.shape
    totals = [0.0, 0.0]
    for image in range(n):
        places = classes_of(labels[image], h, w, k)
        for channel in range(k):
            for outside in (0, 1):
                sides = [
                    [
                        x[image, channel, p[0], p[1]].item() / temperature if (label == channel) != outside else 0.0
                        for p, label in places.items()
                    ]
                    for x in (student, teacher)
                ]
                totals[outside] += temperature**2 * divergence(*sides) / (n * k)
    return totals[0], totals[1]


def test_a_relation_by_hand() -> None:
    # One class of two positions. Prototypes: of the student (1, 1), of the teacher (2, 0); each sees both networks.
    student = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).reshape(1, 2, 1, 2).double()
    teacher = torch.tensor([[4.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 1, 2).double()
    loss = cross_relation(student, teacher, torch.zeros(1, 1, 2, dtype=torch.long), 3, temperature=1.0)
    half = math.sqrt(0.5)  # the student's prototype: cosines to the teacher 0.7 and 0, to the student 0.7 and 0.7
    expected = (divergence([half, half], [half, 0.0]) + divergence([1.0, 0.0], [1.0, 0.0])) / 4
    assert loss.item() == pytest.approx(expected)


def test_channels_by_hand() -> None:
    # Positions of the classes 0, 0, 1. Inside, channel 0 is (1, 2, 0) against (3, 2, 0), channel 1 (0, 0, 6) twice.
    student = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).reshape(1, 2, 1, 3).double()
    teacher = torch.tensor([[3.0, 2.0, 3.0], [4.0, 5.5, 6.0]]).reshape(1, 2, 1, 3).double()
    inside, outside = channels_inside_and_outside(student, teacher, torch.tensor([[[0, 0, 1]]]), temperature=1.0)
    assert inside.item() == pytest.approx(divergence([1.0, 2.0, 0.0], [3.0, 2.0, 0.0]) / 2)
    assert outside.item() == pytest.approx(divergence([4.0, 5.0, 0.0], [4.0, 5.5, 0.0]) / 2)


scenes = given(
    images=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    temperature=st.sampled_from([0.1, 4.0]),
    seed=st.integers(0, 999),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@scenes
def test_relations_equal_the_literal_reference(images: int, grid: Place, temperature: float, seed: int) -> None:
    student, teacher = random_features(images, 3, *grid, seed=seed), random_features(images, 3, *grid, seed=seed + 1)
    for num_classes in (4, 40):
        size = 2 * grid[0], 3 * grid[1]
        labels = random_labels(images, *size, num_classes=num_classes, seed=seed, stray=(255, 41, -1))
        loss = cross_relation(student, teacher, labels, num_classes, temperature=temperature)
        expected = relation_reference(student, teacher, labels, num_classes, temperature)
        assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@scenes
def test_channels_equal_the_literal_reference(images: int, grid: Place, temperature: float, seed: int) -> None:
    student, teacher = random_features(images, 4, *grid, seed=seed), random_features(images, 4, *grid, seed=seed + 1)
    labels = random_labels(images, 2 * grid[0], grid[1], num_classes=4, seed=seed, stray=(255, 4, -1))
    for image in labels:
        image[0, 0] = 1  # images of which all is ignored are not counted, and the reference counts each
    found = channels_inside_and_outside(student, teacher, labels, temperature=temperature)
    expected = channel_reference(student, teacher, labels, temperature)
    assert [x.item() for x in found] == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_relations_equal_finite_differences(layout: torch.memory_format) -> None:
    """With targets held: autograd may not know that the student's prototypes stand in the target too."""
    student = random_features(2, 3, 2, 3).to(memory_format=layout)
    teacher, labels = random_features(2, 3, 2, 3, seed=1), random_labels(2, 2, 3, num_classes=2)
    leaf = student.clone(memory_format=torch.preserve_format).requires_grad_()
    cross_relation(leaf, teacher, labels, 2).backward()
    assert leaf.grad is not None
    literal = student.clone().requires_grad_()
    held_relation(literal, teacher, labels).backward()
    assert literal.grad is not None
    torch.testing.assert_close(leaf.grad, literal.grad, rtol=1e-8, atol=1e-12)


def held_relation(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The definition in plain tensors, class by class, with targets that take no gradient."""
    losses = []
    for s, t, y in zip(student, teacher, labels, strict=True):
        for k in range(2):
            if not (y == k).any():
                continue
            total = student.new_zeros(())
            for side in (s, t):
                prototype = side[:, y == k].mean(1)[:, None]
                for region in (y == k, (y != k) & (y != 255)):
                    ours = torch.cosine_similarity(prototype, s[:, region], dim=0) / 0.1
                    theirs = torch.cosine_similarity(prototype, t[:, region], dim=0).detach() / 0.1
                    log_s, log_t = ours.log_softmax(0), theirs.log_softmax(0)
                    total = total + (log_t.exp() * (log_t - log_s)).sum()
            losses.append(0.01 * total / 4)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_of_channels_equal_finite_differences(part: int) -> None:
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 3, 2, seed=1)
    labels = random_labels(2, 4, 4, num_classes=3)
    assert torch.autograd.gradcheck(lambda x: channels_inside_and_outside(x, teacher, labels)[part], student)


def test_relations_do_not_depend_on_scale() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    labels = random_labels(2, 4, 4, num_classes=3)
    found = cross_relation(7 * student, 0.2 * teacher, labels, 3)
    torch.testing.assert_close(found, cross_relation(student, teacher, labels, 3))


def test_ignored_pixels_take_no_part() -> None:
    student, teacher = random_features(1, 3, 2, 6), random_features(1, 3, 2, 6, seed=1)
    labels = random_labels(1, 2, 6, num_classes=3, stray=(0,))
    labels[..., 4:] = 255
    cut = student[..., :4], teacher[..., :4], labels[..., :4]
    torch.testing.assert_close(cross_relation(student, teacher, labels, 3), cross_relation(*cut, 3))
    for found, expected in zip(
        channels_inside_and_outside(student, teacher, labels), channels_inside_and_outside(*cut), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_a_batch_of_ignored_pixels_costs_exactly_zero() -> None:
    labels, teacher = torch.full((2, 4, 4), 255), random_features(2, 3, 2, 2, seed=1)
    for loss_of in (
        lambda x: cross_relation(x, teacher, labels, 3),
        lambda x: channels_inside_and_outside(x, teacher, labels)[0],
        lambda x: channels_inside_and_outside(x, teacher, labels)[1],
    ):
        student = random_features(2, 3, 2, 2).requires_grad_()
        assert is_zero_with_gradient(loss_of(student), student)


def make(**options: Any) -> CrossRelation:
    torch.manual_seed(0)
    term = CrossRelation(3, mask_ratio=0.0, **options)
    term.bind({"stage4": 4}, {"stage4": 5})
    return term


@pytest.mark.parametrize("name", NONE)
def test_each_part_has_its_weight_and_holds_what_it_needs(name: str) -> None:
    x, y = random_features(2, 4, 4, 4, dtype=torch.float32), random_features(2, 5, 4, 4, seed=1, dtype=torch.float32)
    logits = [random_features(2, 3, 4, 4, seed=seed, dtype=torch.float32) for seed in (2, 3)]
    batch = batch_of(random_labels(2, 8, 8, num_classes=3))
    student, teacher = outputs_of(logits[0], stage4=x), outputs_of(logits[1], stage4=y)
    term = make(**{**NONE, name: 3.0})
    inside, outside = channels_inside_and_outside(*logits, batch.label)
    expected = {
        "relation_weight": lambda: cross_relation(term.adapter(x), y, batch.label, 3),
        "generation_weight": lambda: (
            (term.generator(term.adapter(x), torch.ones(2, 1, 4, 4, dtype=torch.bool)) - y).square().mean()
        ),
        "inside_weight": lambda: inside,
        "outside_weight": lambda: outside,
    }[name]()
    torch.testing.assert_close(term(student, teacher, batch), 3 * expected)
    held = {"relation_weight": {"adapter"}, "generation_weight": {"adapter", "generator"}}.get(name, set())
    assert {key.split(".")[0] for key in term.state_dict()} == held
    assert term.teacher_maps == (("stage4",) if held else ())


def test_the_whole_is_trained_with_the_student() -> None:
    term = make(relation_weight=1.0, generation_weight=1.0)
    maps = random_features(2, 4, 4, 4, dtype=torch.float32).requires_grad_()
    theirs = random_features(2, 5, 4, 4, seed=1, dtype=torch.float32)
    logits = [random_features(2, 3, 4, 4, seed=seed, dtype=torch.float32) for seed in (2, 3)]
    batch, teacher = batch_of(random_labels(2, 8, 8, num_classes=3)), outputs_of(logits[1], stage4=theirs)
    ours = logits[0].requires_grad_()
    losses = descend(
        maps,
        lambda x: term(outputs_of(ours, stage4=x), teacher, batch),
        steps=80,
        lr=0.05,
        others=[ours, *term.parameters()],
    )
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())
    assert term.label_use == "classes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature.*0"),
        ({"logit_temperature": -1.0}, "logit_temperature.*-1"),
        ({"mask_ratio": 1.0}, "mask_ratio.*1"),
        ({"relation_weight": math.nan}, "relation_weight.*nan"),
        (NONE, "one of relation_weight, generation_weight"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossRelation(3, **options)
