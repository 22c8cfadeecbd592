"""What the losses between two maps share: adapters, grids, lengths, precision, and what their terms refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.apd import PixelToCentre, pixel_to_centre
from idd_seg.losses.at import AttentionTransfer, attention_transfer
from idd_seg.losses.attnfd import scaled_distance
from idd_seg.losses.bpkd import BoundaryPrivileged, edges_and_bodies
from idd_seg.losses.cirkd import CrossImage, cross_image
from idd_seg.losses.cwd import ChannelWise, channel_wise
from idd_seg.losses.dist import Dist, dist
from idd_seg.losses.fitnet import Hint, hint
from idd_seg.losses.idd import pixel_class_distance
from idd_seg.losses.ifvd import IntraClassVariation, intra_class_variation
from idd_seg.losses.ops.adapters import Adapter, MapTerm, adapter, comparable, unit
from idd_seg.losses.pairwise import Pairwise, pairwise
from idd_seg.losses.rmrkd import channels_inside_and_outside, cross_relation
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features, random_labels

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

K = 5
LOSSES: dict[str, Loss] = {
    "pairwise": lambda s, t, y: pairwise(s, t, pool=2),
    "ifvd": lambda s, t, y: intra_class_variation(s, t, y, K),
    "cwd": lambda s, t, y: channel_wise(s, t, temperature=2.0),
    "cirkd": lambda s, t, y: cross_image(s, t, temperature=0.1),
    "dist": lambda s, t, y: dist(s, t, y),
    "at": lambda s, t, y: attention_transfer(s, t),
    "fitnet": lambda s, t, y: hint(s, t),
    "apd": lambda s, t, y: pixel_to_centre(s, t, y, K),
    "attnfd": lambda s, t, y: scaled_distance(s, t),
    "bpkd edges": lambda s, t, y: edges_and_bodies(s, t, y, width=3)[0],
    "bpkd bodies": lambda s, t, y: edges_and_bodies(s, t, y)[1],
    "idd pixels": lambda s, t, y: pixel_class_distance(s, t, y, K),
    "rmrkd relations": lambda s, t, y: cross_relation(s, t, y, K),
    "rmrkd inside": lambda s, t, y: channels_inside_and_outside(s, t, y)[0],
    "rmrkd outside": lambda s, t, y: channels_inside_and_outside(s, t, y)[1],
}
FREE_OF_WIDTH = ("pairwise", "ifvd", "cirkd", "at", "apd", "idd pixels")
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def maps(*shape: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A student's and a teacher's map, and labels of twice their size."""
    shape = shape or (3, K, 4, 6)
    labels = random_labels(shape[0], 2 * shape[2], 2 * shape[3], num_classes=K)
    return random_features(*shape, **options), random_features(*shape, seed=1, **options), labels


# The parts.


def test_equal_widths_need_no_adapter() -> None:
    assert isinstance(adapter(4, 4), nn.Identity)
    assert isinstance(adapter(4, 4, always=True), Adapter)
    assert not adapter(4, 4).state_dict()


def test_an_adapter_is_a_linear_map_of_each_position() -> None:
    layer = adapter(2, 3)
    assert isinstance(layer, Adapter)
    x = random_features(1, 2, 4, 5, dtype=torch.float32)
    y = layer(x)
    assert y.shape == (1, 3, 4, 5)
    by_hand = layer.weight[:, :, 0, 0] @ x[0, :, 2, 3] + layer.bias
    torch.testing.assert_close(y[0, :, 2, 3], by_hand)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_computes_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = Adapter(3, 2), random_features(2, 3, 4, 4, dtype=dtype)
    expected = layer.double()(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer.float()(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    assert layer.to(dtype)(x).dtype == torch.float32


def test_the_teacher_comes_to_the_grid_of_the_student_without_gradient() -> None:
    teacher = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2).requires_grad_()
    student, resized = comparable(torch.zeros(1, 1, 1, 4, dtype=torch.float64), teacher)
    # Centres of four cells at 0.25, 0.75, 1.25, 1.75; of two at 0.5 and 1.5.
    assert resized.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resized.dtype == student.dtype == torch.float64
    assert not resized.requires_grad


def test_unit_by_hand() -> None:
    torch.testing.assert_close(unit(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), 0), torch.tensor([[0.6, 0.0], [0.8, 0.0]]))


def test_a_vector_of_zeros_has_no_direction_and_no_gradient() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    (unit(x, 1) * torch.tensor([[1.0, 2.0], [5.0, 6.0]])).sum().backward()
    assert x.grad is not None
    # (I - u u^T) (1, 2) / 5 with u = (0.6, 0.8): (1, 2) - 2.2 (0.6, 0.8) = (-0.32, 0.24).
    torch.testing.assert_close(x.grad, torch.tensor([[-0.064, 0.048], [0.0, 0.0]]))


# What every loss obeys.


@each_loss
def test_zero_for_identical_maps(loss: Loss) -> None:
    student, _, labels = maps()
    teacher = student.clone()
    value = loss(student.requires_grad_(), teacher, labels)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12
    single = student.detach().float()
    assert abs(loss(single, single, labels).item()) <= 1e-6


@each_loss
def test_descent_lowers_the_loss(loss: Loss) -> None:
    student, teacher, labels = maps()
    losses = descend(student.requires_grad_(), lambda x: loss(x, teacher, labels), steps=60, lr=0.05)
    assert losses[0] > 0
    assert losses[-1] < 0.5 * losses[0]


@each_loss
def test_the_teacher_gets_no_gradient(loss: Loss) -> None:
    student, teacher, labels = maps()
    loss(student.requires_grad_(), teacher.requires_grad_(), labels).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


@each_loss
def test_the_order_of_images_does_not_matter(loss: Loss) -> None:
    student, teacher, labels = maps()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss(student[order], teacher[order], labels[order]), loss(student, teacher, labels))


@each_loss
def test_teacher_and_student_must_be_of_the_same_image(loss: Loss) -> None:
    student, teacher, labels = maps()
    order = torch.tensor([2, 0, 1])
    assert abs(loss(student, teacher[order], labels) - loss(student, teacher, labels)) > 1e-6


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    student, teacher, labels = maps(dtype=dtype)
    value = loss(student.requires_grad_(), teacher, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(student.double(), teacher.double(), labels).item(), rel=1e-4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@each_loss
def test_autocast_changes_nothing(loss: Loss) -> None:
    student, teacher, labels = maps(dtype=torch.float32)
    expected = loss(student, teacher, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(student, teacher, labels), expected)


@each_loss
def test_a_scalar_and_float64_stays(loss: Loss) -> None:
    value = loss(*maps())
    assert value.shape == ()
    assert value.dtype == torch.float64


@each_loss
def test_the_layout_in_memory_does_not_matter(loss: Loss) -> None:
    student, teacher, labels = maps()
    ours, theirs = (x.to(memory_format=torch.channels_last) for x in (student, teacher))
    torch.testing.assert_close(loss(ours, theirs, labels), loss(student, teacher, labels))


@each_loss
@pytest.mark.parametrize("size", [(2, 3), (7, 9), (1, 1)])
def test_a_teacher_of_another_grid_is_resized_bilinearly(loss: Loss, size: tuple[int, int]) -> None:
    student, _, labels = maps()
    teacher = random_features(3, K, *size, seed=1)
    resized = F.interpolate(teacher, size=student.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(loss(student, teacher, labels), loss(student, resized, labels))


@each_loss
@pytest.mark.parametrize("shape", [(1, K, 4, 4), (1, K, 1, 1), (3, K, 1, 1), (2, K, 1, 7)])
def test_small_maps_have_finite_losses_and_gradients(loss: Loss, shape: tuple[int, ...]) -> None:
    student, teacher, _ = maps(*shape)
    labels = torch.zeros(shape[0], 3, 3, dtype=torch.long)
    value = loss(student.requires_grad_(), teacher, labels)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("zero", [(True, True), (True, False), (False, True)], ids=["both", "student", "teacher"])
def test_maps_of_zeros_have_finite_losses_and_gradients(loss: Loss, zero: tuple[bool, bool]) -> None:
    student, teacher, labels = maps(dtype=torch.float32)
    student, teacher = (x * 0 if is_zero else x for x, is_zero in zip((student, teacher), zero, strict=True))
    value = loss(student.requires_grad_(), teacher, labels)
    value.backward()
    assert value.isfinite()
    assert (value.item() == 0) is all(zero)
    assert student.grad is not None
    assert student.grad.abs().max() < 100


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_widths_may_differ_where_the_definition_allows(name: str) -> None:
    student, _, labels = maps()
    teacher = random_features(3, 7, 4, 6, seed=1)
    if name in FREE_OF_WIDTH:
        assert LOSSES[name](student, teacher, labels).item() > 0
    else:
        with pytest.raises(ValueError, match=r"5 .* 7 | 5 channels, the teacher 7"):
            LOSSES[name](student, teacher, labels)


@pytest.mark.parametrize("name", ["pairwise", "cwd", "cirkd", "at", "fitnet"])
def test_labels_are_used_only_where_the_definition_has_them(name: str) -> None:
    student, teacher, labels = maps()
    term = TERMS[name]()
    term.bind({"head": K}, {"head": K})
    values = [term(outputs(student), outputs(teacher), batch_of(y)) for y in (labels, torch.full_like(labels, 255))]
    assert values[0].item() == values[1].item() > 0


@pytest.mark.parametrize("name", ["pairwise", "cwd", "cirkd", "dist", "at", "fitnet", "ifvd", "apd", "bpkd"])
def test_what_a_term_says_of_its_use_of_labels_is_so(name: str) -> None:
    student, teacher, labels = maps()
    term = TERMS[name]()
    term.bind({"head": K}, {"head": K})
    renamed = torch.where(labels == 255, 255, torch.tensor([2, 0, 0, 1, 3, 4])[labels.clamp(max=K)])
    values = [term(outputs(student), outputs(teacher), batch_of(y)).item() for y in (labels, renamed)]
    assert (values[0] == values[1]) is (term.label_use == "none")


# The terms.

TERMS: dict[str, Callable[..., Term]] = {
    "pairwise": Pairwise,
    "ifvd": lambda **options: IntraClassVariation(num_classes=K, **options),
    "cwd": ChannelWise,
    "cirkd": CrossImage,
    "dist": Dist,
    "at": AttentionTransfer,
    "fitnet": Hint,
    "apd": lambda **options: PixelToCentre(num_classes=K, **options),
    "bpkd": BoundaryPrivileged,
}
AS_TERMS: dict[str, tuple[dict[str, Any], Loss]] = {
    "pairwise": ({"pool": 2}, LOSSES["pairwise"]),
    "ifvd": ({}, LOSSES["ifvd"]),
    "cwd": ({"temperature": 2.0}, LOSSES["cwd"]),
    "cirkd": ({"temperature": 0.1}, LOSSES["cirkd"]),
    "at": ({}, LOSSES["at"]),
    "apd": ({}, LOSSES["apd"]),
    "fitnet": ({"adapter": "widths"}, LOSSES["fitnet"]),
}
each_term = pytest.mark.parametrize("name", TERMS)
each_map_term = pytest.mark.parametrize("name", AS_TERMS)


def outputs(x: Tensor) -> Outputs:
    return Outputs(x, {"stage1": x, "head": x})


def batch_of(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, torch.zeros(len(labels), 4), ["x"] * len(labels))


@each_map_term
@pytest.mark.parametrize("tap", ["head", "stage1", "logits"])
def test_a_term_compares_the_maps_of_its_tap(name: str, tap: str) -> None:
    options, loss = AS_TERMS[name]
    term = TERMS[name](weight=3.0, tap=tap, **options)
    term.bind({"stage1": K, "head": K}, {"stage1": K, "head": K})
    student, teacher, labels = maps()
    other = torch.ones_like(student)
    taps = {"logits": other, "head": other, "stage1": other}
    ours, theirs = ({**taps, tap: x} for x in (student, teacher))
    value = term(Outputs(ours.pop("logits"), ours), Outputs(theirs.pop("logits"), theirs), batch_of(labels))
    torch.testing.assert_close(value, loss(student, teacher, labels))


@each_map_term
@pytest.mark.parametrize(("student", "teacher"), [({"stage4": 4}, {"head": 4}), ({"head": 4}, {"stage4": 4})])
def test_an_unknown_tap_is_refused(name: str, student: dict[str, int], teacher: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"'head'.*stage4, logits"):
        TERMS[name](tap="head").bind(student, teacher)


@each_term
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_bad_weight_is_refused(name: str, weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight.*{weight}"):
        TERMS[name](weight=weight)


@each_term
def test_a_term_without_a_teacher_is_refused_by_name(name: str) -> None:
    term = TERMS[name]()
    assert term.needs_teacher
    student, _, labels = maps()
    with pytest.raises(ValueError, match=f"{type(term).__name__} needs a teacher"):
        term(outputs(student), None, batch_of(labels))


@each_term
def test_the_weight_follows_the_schedule(name: str) -> None:
    term = TERMS[name](weight=4.0, schedule=WeightSchedule(warmup=1))
    assert [term.weight_at(step) for step in range(2)] == [2.0, 4.0]


@pytest.mark.parametrize("name", ["cwd", "fitnet"])
def test_the_adapter_is_trained_with_the_student(name: str) -> None:
    torch.manual_seed(0)
    term = TERMS[name](tap="head")
    assert isinstance(term, MapTerm)
    term.bind({"head": 3}, {"head": K})
    assert {key.split(".")[0] for key in term.state_dict()} == {"adapter"}
    student, teacher = random_features(2, 3, 4, 4).float(), random_features(2, K, 4, 4, seed=1).float()
    student.requires_grad_()
    parameters = list(term.parameters())
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    losses = descend(
        student, lambda x: term(outputs(x), outputs(teacher), batch_of(labels)), steps=60, lr=0.05, others=parameters
    )
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert any(bool(p.grad.any()) for p in parameters if p.grad is not None)
