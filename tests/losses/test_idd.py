"""Inter-class distance: values by hand, equality with the literal reference, and what a distance must obey."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.idd import InterClassDistance, class_means, inter_class_distance
from idd_seg.types import Batch, Outputs
from tests.losses import reference
from tests.losses.scenes import descend, random_features, random_labels

NORMALIZE = ("mean", "none")
SCOPES = ("image", "batch", "world")
RESIZE = ("nearest", "area")
CASES = [(n, s, r) for n in NORMALIZE for s in SCOPES for r in RESIZE]


def line(*vectors: tuple[float, ...]) -> Tensor:
    """A feature map of one row with a vector in each cell, (1, C, 1, w)."""
    return torch.tensor(vectors, dtype=torch.float64).T[None, :, None, :]


# Edges of the student 0-1: 5, 0-2: 8, 1-2: 5 (mean 6); of the teacher 2, 6, 4 (mean 4).
STUDENT = line((0, 0), (3, 4), (0, 8))
TEACHER = line((0,), (2,), (6,))
THREE = torch.tensor([[[0, 1, 2]]])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
def test_what_is_no_number_is_not_hidden(side: str, value: float, distance: str) -> None:
    """A loss that is not finite ends the run; one that only looks finite would spoil it."""
    student, teacher = STUDENT.clone(), TEACHER.clone()
    (student if side == "student" else teacher)[0, 0, 0, 1] = value
    assert not torch.isfinite(inter_class_distance(student, teacher, THREE, 3, distance=distance))


@pytest.mark.parametrize(
    ("normalize", "reduction", "expected"),
    [
        ("none", "mean", ((5 - 2) ** 2 + (8 - 6) ** 2 + (5 - 4) ** 2) / 3),
        ("none", "sum", 14.0),
        # 5/6 - 1/2 = 1/3, 8/6 - 3/2 = -1/6, 5/6 - 1 = -1/6: squares 4/36 + 1/36 + 1/36 = 1/6.
        ("mean", "mean", 1 / 18),
        ("mean", "sum", 1 / 6),
    ],
)
@pytest.mark.parametrize("scope", SCOPES)
def test_value_by_hand(normalize: str, reduction: str, expected: float, scope: str) -> None:
    loss = inter_class_distance(STUDENT, TEACHER, THREE, 3, normalize=normalize, reduction=reduction, scope=scope)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_mean_is_over_images_with_a_pair() -> None:
    # Image 0: 14 / 3 as above. Image 1: one class. Image 2: classes 0 and 2, (8 - 6)^2 = 4. (14 / 3 + 4) / 2 = 13 / 3.
    labels = torch.tensor([[[0, 1, 2]], [[1, 1, 1]], [[0, 255, 2]]])
    student, teacher = STUDENT.expand(3, -1, -1, -1), TEACHER.expand(3, -1, -1, -1)
    loss = inter_class_distance(student, teacher, labels, 3, normalize="none")
    assert loss.item() == pytest.approx(13 / 3, rel=1e-9)


def test_a_batch_has_edges_between_classes_of_different_images() -> None:
    # Student: class 0 at 0, class 1 at 3; teacher: 0 and 5. Neither image has both.
    student = torch.tensor([0.0, 3.0]).reshape(2, 1, 1, 1)
    teacher = torch.tensor([0.0, 5.0]).reshape(2, 1, 1, 1)
    labels = torch.tensor([0, 1]).reshape(2, 1, 1)
    assert inter_class_distance(student, teacher, labels, 2, normalize="none", scope="image").item() == 0
    assert inter_class_distance(student, teacher, labels, 2, normalize="none", scope="batch").item() == pytest.approx(4)
    assert inter_class_distance(student, teacher, labels, 2, normalize="none", scope="world").item() == pytest.approx(4)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    case=st.sampled_from(CASES),
    images=st.integers(1, 3),
    student_grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    teacher_grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    # Two classes give one edge: 1 = 1 when it is divided by its mean.
    num_classes=st.integers(1, 6),
    # No sum of shares of small cells is equal to these but for rounding.
    min_pixels=st.sampled_from([0.0137, 0.9137, 1.9137]),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    case: tuple[str, str, str],
    images: int,
    student_grid: tuple[int, int],
    teacher_grid: tuple[int, int],
    size: tuple[int, int],
    num_classes: int,
    min_pixels: float,
    reduction: str,
    seed: int,
) -> None:
    normalize, scope, resize = case
    student = random_features(images, 3, *student_grid, seed=seed)
    teacher = random_features(images, 5, *teacher_grid, seed=seed + 1)
    if resize == "area":
        # A cell without any pixel has no share of anything: labels are as fine as the grids.
        size = max(size[0], student_grid[0], teacher_grid[0]), max(size[1], student_grid[1], teacher_grid[1])
    labels = random_labels(images, *size, num_classes=num_classes, seed=seed, stray=(255, num_classes, -1))
    options: dict[str, Any] = {
        "normalize": normalize,
        "scope": scope,
        "resize": resize,
        "min_pixels": min_pixels,
        "reduction": reduction,
    }
    expected = reference.inter_class_distance(student, teacher, labels, num_classes, **options)
    loss = inter_class_distance(student, teacher, labels, num_classes, **options)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_gradient_equals_finite_differences(normalize: str, scope: str, resize: str) -> None:
    labels = random_labels(2, 6, 6, num_classes=4)
    student, teacher = random_features(2, 3, 3, 4).requires_grad_(), random_features(2, 2, 3, 3, seed=1)
    assert torch.autograd.gradcheck(
        lambda x: inter_class_distance(x, teacher, labels, 4, normalize=normalize, scope=scope, resize=resize), student
    )


@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_descent_lowers_the_loss(normalize: str, scope: str, resize: str) -> None:
    labels = random_labels(2, 8, 8, num_classes=4)
    student, teacher = random_features(2, 3, 4, 4).requires_grad_(), random_features(2, 5, 4, 4, seed=1)

    def loss_of(features: Tensor) -> Tensor:
        return inter_class_distance(features, teacher, labels, 4, normalize=normalize, scope=scope, resize=resize)

    losses = descend(student, loss_of, steps=40, lr=0.05)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_zero_for_identical_features(normalize: str, scope: str, resize: str) -> None:
    features, labels = random_features(2, 3, 4, 4), random_labels(2, 8, 8, num_classes=5)
    student = features.clone().requires_grad_()
    loss = inter_class_distance(student, features, labels, 5, normalize=normalize, scope=scope, resize=resize)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_invariant_under_a_rotation_of_channels(normalize: str, scope: str, resize: str) -> None:
    student, teacher = random_features(2, 4, 4, 4), random_features(2, 3, 4, 4, seed=1)
    labels = random_labels(2, 8, 8, num_classes=5)
    rotation, _ = torch.linalg.qr(random_features(4, 4, seed=2))
    turned = torch.einsum("dc,nchw->ndhw", rotation, student)
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "resize": resize}
    expected = inter_class_distance(student, teacher, labels, 5, **options)
    torch.testing.assert_close(inter_class_distance(turned, teacher, labels, 5, **options), expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_invariant_under_the_order_of_images(scope: str) -> None:
    student, teacher = random_features(4, 3, 3, 3), random_features(4, 3, 3, 3, seed=1)
    labels = random_labels(4, 6, 6, num_classes=5)
    order = torch.tensor([2, 0, 3, 1])
    expected = inter_class_distance(student, teacher, labels, 5, scope=scope)
    shuffled = inter_class_distance(student[order], teacher[order], labels[order], 5, scope=scope)
    torch.testing.assert_close(shuffled, expected)


def test_invariant_under_a_renaming_of_classes() -> None:
    student, teacher = random_features(2, 3, 3, 3), random_features(2, 3, 3, 3, seed=1)
    labels = torch.randint(5, (2, 6, 6), generator=torch.Generator().manual_seed(0))
    renamed = torch.tensor([3, 0, 4, 1, 2])[labels]
    expected = inter_class_distance(student, teacher, labels, 5)
    torch.testing.assert_close(inter_class_distance(student, teacher, renamed, 5), expected)


def test_invariant_under_a_shift_in_float32() -> None:
    """Distances by way of inner products lose a common offset of 100 in their rounding."""
    student, teacher = random_features(2, 64, 4, 4).float(), random_features(2, 64, 4, 4, seed=1).float()
    labels = random_labels(2, 8, 8, num_classes=5)
    expected = inter_class_distance(student, teacher, labels, 5, normalize="none")
    shifted = inter_class_distance(student + 100, teacher - 100, labels, 5, normalize="none")
    torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 40.0])
def test_mean_normalisation_takes_the_scale_of_either_side_away(scale: float) -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 5, 4, 4, seed=1)
    labels = random_labels(2, 8, 8, num_classes=5)
    expected = inter_class_distance(student, teacher, labels, 5).item()
    assert expected > 0
    assert inter_class_distance(scale * student, teacher, labels, 5).item() == pytest.approx(expected, rel=1e-4)
    assert inter_class_distance(student, scale * teacher, labels, 5).item() == pytest.approx(expected, rel=1e-4)


def test_raw_edges_keep_the_scale() -> None:
    # Twice the student's edges 5, 8, 5 are 10, 16, 10: (8^2 + 10^2 + 6^2) / 3 = 200 / 3.
    loss = inter_class_distance(2 * STUDENT, TEACHER, THREE, 3, normalize="none")
    assert loss.item() == pytest.approx(200 / 3, rel=1e-9)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = random_features(1, 3, 3, 3).requires_grad_(), random_features(1, 3, 3, 3, seed=1)
    teacher.requires_grad_()
    inter_class_distance(student, teacher, random_labels(1, 3, 3, num_classes=3), 3).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_an_absent_class_is_no_zero_vector(normalize: str) -> None:
    student, teacher = STUDENT + 10, TEACHER + 5
    ours = inter_class_distance(student, teacher, THREE, 4, normalize=normalize).item()
    assert ours == pytest.approx(inter_class_distance(student, teacher, THREE, 3, normalize=normalize).item())

    means = [class_means(side, THREE, 4)[0][0].tolist() for side in (student, teacher)]
    every_pair = [(i, j) for j in range(4) for i in range(j)]
    wrong = reference.graph_loss(
        dict(enumerate(means[0])), dict(enumerate(means[1])), every_pair, normalize, reduction="mean"
    )
    assert abs(ours - wrong) > 0.1 * wrong


def test_an_absent_class_gets_no_gradient_through_ignored_pixels() -> None:
    labels = torch.tensor([[[0, 1, 2, 255, 7]]])
    student = random_features(1, 3, 1, 5).requires_grad_()
    inter_class_distance(student, random_features(1, 3, 1, 5, seed=1), labels, 3).backward()
    assert student.grad is not None
    assert student.grad[..., :3].abs().sum(dim=1).min() > 0
    assert not student.grad[..., 3:].any()


def test_min_pixels_counts_on_either_grid() -> None:
    # Class 2 has two of four student cells but one of the teacher's two: with min_pixels=2 it is out on the teacher.
    student = random_features(1, 2, 1, 4)
    teacher = random_features(1, 2, 1, 2, seed=1)
    labels = torch.tensor([[[0, 0, 2, 2]]])
    assert inter_class_distance(student, teacher, labels, 3, normalize="none", min_pixels=1).item() > 0
    assert inter_class_distance(student, teacher, labels, 3, normalize="none", min_pixels=2).item() == 0
    assert inter_class_distance(teacher, student, labels, 3, normalize="none", min_pixels=2).item() == 0


def test_min_pixels_holds_for_fractions_of_cells() -> None:
    # Class 0 fills 0.5 of a cell, class 1 fills 1.5. Student: class 0 at 0, class 1 at 3 / 1.5 = 2; teacher: 0 and 6.
    student, teacher, labels = line((0,), (3,)), line((0,), (9,)), torch.tensor([[[0, 1, 1, 1]]])
    options: dict[str, Any] = {"normalize": "none", "resize": "area"}
    assert inter_class_distance(student, teacher, labels, 2, min_pixels=1, **options).item() == 0
    assert inter_class_distance(student, teacher, labels, 2, min_pixels=0.5, **options).item() == pytest.approx(16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("side", "cells"), [(3, 4), (5, 6), (5, 7), (6, 5), (6, 6), (7, 6)])
def test_shares_that_add_up_to_a_whole_cell_are_enough(side: int, cells: int, dtype: torch.dtype) -> None:
    """Class 0 has as many pixels as a cell of `side` x `side`, spread over `cells` cells; class 1 fills the last."""
    labels = torch.full((side, cells + 1, side), 255)
    for pixel in range(side * side):
        labels[pixel // cells // side, pixel % cells, pixel // cells % side] = 0
    labels[:, cells] = 1
    student = torch.arange(cells + 1, dtype=dtype).reshape(1, 1, 1, -1)
    loss = inter_class_distance(
        student, 2 * student, labels.reshape(1, side, -1), 2, normalize="none", resize="area", min_pixels=1
    )
    assert loss.item() > 0


NOTHING_TO_LEARN = {
    "one class only": torch.zeros(2, 4, 4, dtype=torch.long),
    "all ignored": torch.full((2, 4, 4), 255),
    "all out of range": torch.full((2, 4, 4), 19),
}


@pytest.mark.parametrize("labels", NOTHING_TO_LEARN.values(), ids=NOTHING_TO_LEARN.keys())
@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_fewer_than_two_classes_are_exactly_zero_with_a_gradient(
    labels: Tensor, normalize: str, scope: str, resize: str
) -> None:
    student = random_features(2, 3, 4, 4).requires_grad_()
    teacher = random_features(2, 3, 4, 4, seed=1)
    loss = inter_class_distance(student, teacher, labels, 19, normalize=normalize, scope=scope, resize=resize)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_two_classes_normalised_by_their_mean_teach_nothing() -> None:
    student = line((0,), (3,)).requires_grad_()
    loss = inter_class_distance(student, line((0,), (9,)), torch.tensor([[[0, 1]]]), 2, normalize="mean")
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_two_classes_raw() -> None:
    loss = inter_class_distance(line((0,), (3,)), line((0,), (9,)), torch.tensor([[[0, 1]]]), 2, normalize="none")
    assert loss.item() == pytest.approx(36)


@pytest.mark.parametrize(("normalize", "scope", "resize"), CASES)
def test_a_thousand_classes(normalize: str, scope: str, resize: str) -> None:
    """Tens of classes among a thousand give what they give under small numbers of their own."""
    used = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:20].sort().values
    few = random_labels(2, 16, 16, num_classes=20, stray=(-1,))
    many = torch.where(few < 0, few, used[few.clamp(min=0)])
    student, teacher = random_features(2, 4, 8, 8), random_features(2, 6, 8, 8, seed=1)
    options: dict[str, Any] = {"normalize": normalize, "scope": scope, "resize": resize, "ignore_index": -1}
    expected = inter_class_distance(student, teacher, few, 20, **options)
    assert expected.item() > 0
    torch.testing.assert_close(inter_class_distance(student, teacher, many, 1000, **options), expected)


def test_a_class_with_the_number_255() -> None:
    """With 1000 classes 255 is a class as soon as another value is ignored."""
    labels = torch.tensor([[[0, 255, 999]]])
    loss = inter_class_distance(STUDENT, TEACHER, labels, 1000, normalize="none", ignore_index=-1)
    assert loss.item() == pytest.approx(14 / 3)
    assert inter_class_distance(STUDENT, TEACHER, labels, 1000, normalize="none").item() == pytest.approx(4)


def test_all_of_a_thousand_classes_present() -> None:
    labels = torch.arange(1024).reshape(1, 32, 32)
    student = random_features(1, 2, 32, 32, dtype=torch.float32).requires_grad_()
    loss = inter_class_distance(student, 3 * student.detach(), labels, 1000)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-8)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("scope", "expected"), [("image", 0.0), ("batch", 14 / 3)])
def test_maps_of_one_cell(scope: str, expected: float) -> None:
    """Each image shows its class in the top left corner, which is what one cell of nearest labels reads."""
    student, teacher = STUDENT[0, :, 0].T[:, :, None, None], TEACHER[0, :, 0].T[:, :, None, None]
    labels = torch.full((3, 4, 4), 9)
    labels[:, 0, 0] = torch.arange(3)
    loss = inter_class_distance(student, teacher, labels, 10, normalize="none", scope=scope)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype, resize: str) -> None:
    student = random_features(2, 16, 4, 4, dtype=dtype).requires_grad_()
    teacher = random_features(2, 8, 4, 4, seed=1, dtype=dtype)
    labels = random_labels(2, 8, 8, num_classes=4)
    loss = inter_class_distance(student, teacher, labels, 4, resize=resize)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        reference.inter_class_distance(student, teacher, labels, 4, resize=resize), rel=1e-4
    )
    assert student.grad is not None
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("resize", RESIZE)
def test_autocast_changes_nothing(resize: str) -> None:
    student, teacher = random_features(2, 16, 4, 4).float(), random_features(2, 8, 4, 4, seed=1).float()
    labels = random_labels(2, 8, 8, num_classes=4)
    expected = inter_class_distance(student, teacher, labels, 4, resize=resize)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = inter_class_distance(student, teacher, labels, 4, resize=resize)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_float64_stays() -> None:
    assert inter_class_distance(STUDENT, TEACHER, THREE, 3).dtype == torch.float64


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize(
    "student",
    [line((1, 2), (1, 2), (4, 6)), torch.full((1, 2, 1, 3), 0.7), torch.zeros(1, 2, 1, 3)],
    ids=["two equal nodes", "all nodes equal", "all nodes zero"],
)
def test_zero_distances_have_finite_gradients(student: Tensor, normalize: str) -> None:
    for dtype in (torch.float32, torch.float64):
        features = student.to(dtype).clone().requires_grad_()
        loss = inter_class_distance(features, TEACHER.to(dtype), THREE, 3, normalize=normalize)
        loss.backward()
        assert loss.isfinite()
        assert features.grad is not None
        assert features.grad.isfinite().all()


def test_equal_nodes_by_hand() -> None:
    # Student edges 0, 5, 5; teacher 2, 6, 4: (4 + 1 + 1) / 3 = 2.
    loss = inter_class_distance(line((1, 2), (1, 2), (4, 6)), TEACHER, THREE, 3, normalize="none")
    assert loss.item() == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_teacher_of_equal_nodes_gives_finite_gradients(normalize: str) -> None:
    student = STUDENT.clone().requires_grad_()
    loss = inter_class_distance(student, torch.ones(1, 1, 1, 3), THREE, 3, normalize=normalize)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("resize", RESIZE)
@pytest.mark.parametrize("scope", SCOPES)
def test_saved_memory_has_no_factor_of_classes(scope: str, resize: str) -> None:
    """A mask per class would save 19 times the features."""
    student = torch.randn(2, 256, 32, 32, requires_grad=True)
    teacher = torch.randn(2, 256, 32, 32)
    labels = random_labels(2, 256, 256, num_classes=19)
    saved = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        inter_class_distance(student, teacher, labels, 19, scope=scope, resize=resize)
    features = student.numel() * student.element_size()
    assert 0 < sum(saved) <= features + features / 3


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("normalize", NORMALIZE),
        ("scope", SCOPES),
        ("resize", RESIZE),
        ("reduction", ("mean", "sum")),
    ],
)
def test_unknown_options_are_refused(option: str, allowed: tuple[str, ...]) -> None:
    for build in (
        lambda **options: inter_class_distance(STUDENT, TEACHER, THREE, 3, **options),
        lambda **options: InterClassDistance(3, **options),
    ):
        with pytest.raises(ValueError, match="bilinear") as error:
            build(**{option: "bilinear"})
        assert all(value in str(error.value) for value in allowed)


# The term: the same loss inside training, with its memory.


def outputs(features: Tensor) -> Outputs:
    return Outputs(logits=features, features={"head": features})


def batch_of(labels: Tensor) -> Batch:
    n, h, w = labels.shape
    return Batch(torch.zeros(n, 3, h, w), labels, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(n, 4), ["x"] * n)


def term_for(student_width: int, teacher_width: int, num_classes: int = 3, **options: Any) -> InterClassDistance:
    term = InterClassDistance(num_classes, **options)
    term.bind({"head": student_width}, {"head": teacher_width})
    return term.train()


def test_the_term_gives_the_unweighted_loss() -> None:
    term = term_for(2, 1, weight=7.0, normalize="none", reduction="sum")
    assert term.weight == 7
    assert term(outputs(STUDENT), outputs(TEACHER), batch_of(THREE)).item() == pytest.approx(14)


def test_the_term_has_nothing_to_train() -> None:
    assert not list(term_for(2, 1).parameters())
    assert not list(term_for(2, 1, memory=0.9).parameters())


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_bad_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=str(weight)):
        InterClassDistance(3, weight=weight)


@pytest.mark.parametrize("memory", [-0.1, 1.0, 1.5])
def test_a_bad_memory_is_refused(memory: float) -> None:
    with pytest.raises(ValueError, match=str(memory)):
        InterClassDistance(3, memory=memory)


def test_an_unknown_tap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stage9.*head"):
        InterClassDistance(3, taps=["stage9"]).bind({"head": 2}, {"head": 2})


def test_another_tap_is_read() -> None:
    term = InterClassDistance(3, normalize="none", taps=["stage3"])
    term.bind({"head": 1, "stage3": 2}, {"head": 1, "stage3": 1})
    student = Outputs(STUDENT, {"head": TEACHER, "stage3": STUDENT})
    teacher = Outputs(TEACHER, {"head": TEACHER, "stage3": TEACHER})
    assert term(student, teacher, batch_of(THREE)).item() == pytest.approx(14 / 3)


@pytest.mark.parametrize("memory", [None, 0.5])
def test_the_logits_are_a_tap_too(memory: float | None) -> None:
    term = InterClassDistance(3, normalize="none", taps=["logits"], memory=memory)
    term.bind({"head": 1}, {"head": 1})
    assert term.teacher_maps == []
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    labels = torch.tensor([0, 1, 2, 255]).repeat(2, 4, 1)
    found = term(Outputs(student, {"head": teacher}), Outputs(teacher, {"head": teacher}), batch_of(labels))
    assert found.item() == pytest.approx(
        inter_class_distance(student, teacher, labels, 3, normalize="none").item(), rel=1e-6
    )


def test_memory_by_hand() -> None:
    """Three steps of a student and a teacher of one channel, memory 0.75."""
    term = term_for(1, 1, memory=0.75, normalize="none", scope="batch")

    def step(student: tuple[float, ...], teacher: tuple[float, ...], *classes: int) -> float:
        sides = [outputs(line(*[(value,) for value in side])) for side in (student, teacher)]
        return float(term(*sides, batch_of(torch.tensor([[classes]]))))

    # Only class 0, nothing remembered: no pair. Stored as is: 0 (student), 0 (teacher).
    assert step((0.0,), (0.0,), 0) == 0
    # Class 1 at 4 and 10, class 0 by memory at 0 and 0: (4 - 10)^2 = 36. Stored: 1 at 4, 10.
    assert step((4.0,), (10.0,), 1) == pytest.approx(36)
    # Class 1 at 8 and 2: (8 - 2)^2 = 36. Memory of 1: 0.75 * 4 + 0.25 * 8 = 5 and 0.75 * 10 + 0.25 * 2 = 8.
    assert step((8.0,), (2.0,), 1) == pytest.approx(36)
    # Class 2 at 6 and 9: to 0: (6 - 9)^2 = 9; to 1: (|6 - 5| - |9 - 8|)^2 = 0; 0-1 are both absent. Mean 4.5.
    assert step((6.0,), (9.0,), 2) == pytest.approx(4.5)
    # Classes 0 and 2 at 1, 3 and 0, 7: 0-2: (2 - 7)^2 = 25; 0-1: (4 - 8)^2 = 16; 2-1: (2 - 1)^2 = 1. Mean 14.
    assert step((1.0, 3.0), (0.0, 7.0), 0, 2) == pytest.approx(14)


def test_memory_gives_no_gradient_across_steps() -> None:
    term = term_for(2, 2, memory=0.5, normalize="none", scope="batch")
    first = random_features(1, 2, 1, 1).requires_grad_()
    term(outputs(first), outputs(random_features(1, 2, 1, 1, seed=1)), batch_of(torch.tensor([[[0]]]))).backward()
    first.grad = None
    second = random_features(1, 2, 1, 1, seed=2).requires_grad_()
    term(outputs(second), outputs(random_features(1, 2, 1, 1, seed=3)), batch_of(torch.tensor([[[1]]]))).backward()
    assert second.grad is not None
    assert second.grad.any()
    assert first.grad is None


def remembered_loss(
    history: list[tuple[Tensor, Tensor, Tensor]], momentum: float, num_classes: int, normalize: str
) -> list[float]:
    """The literal memory, scope `batch`: the loss at every step of the history."""
    stores: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    losses = []
    for student, teacher, labels in history:
        nodes = [reference.class_means(side, labels, num_classes, scope="batch")[0][0] for side in (student, teacher)]
        present = [k for k in range(num_classes) if k in nodes[0] and k in nodes[1]]
        known = [k for k in range(num_classes) if k in present or k in stores[0]]
        pairs = [(i, j) for i in known for j in known if i < j and (i in present or j in present)]
        graphs = [
            {k: now[k] if k in present else store[k] for k in known} for now, store in zip(nodes, stores, strict=True)
        ]
        losses.append(reference.graph_loss(graphs[0], graphs[1], pairs, normalize, "mean") if pairs else 0.0)
        for now, store in zip(nodes, stores, strict=True):
            for k in present:
                old = store.get(k, now[k])
                store[k] = [momentum * a + (1 - momentum) * b for a, b in zip(old, now[k], strict=True)]
    return losses


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("seed", range(3))
def test_memory_equals_the_literal_reference(normalize: str, seed: int) -> None:
    history = [
        (
            random_features(2, 3, 2, 2, seed=100 * seed + 2 * step).float(),
            random_features(2, 4, 2, 2, seed=100 * seed + 2 * step + 1).float(),
            random_labels(2, 2, 2, num_classes=9, seed=100 * seed + step),
        )
        for step in range(6)
    ]
    term = term_for(3, 4, num_classes=9, memory=0.6, normalize=normalize, scope="batch")
    losses = [float(term(outputs(s), outputs(t), batch_of(labels))) for s, t, labels in history]
    assert losses == pytest.approx(remembered_loss(history, 0.6, 9, normalize), rel=1e-4)


def test_held_out_batches_leave_the_memory_as_it_is() -> None:
    term = term_for(1, 1, memory=0.5, normalize="none", scope="batch")
    term(outputs(line((0,))), outputs(line((0,))), batch_of(torch.tensor([[[0]]])))
    before = {name: value.clone() for name, value in term.state_dict().items()}
    term.eval()
    term(outputs(line((50,))), outputs(line((70,))), batch_of(torch.tensor([[[0]]])))
    after = term.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_memory_survives_a_save_and_a_load(tmp_path: Any) -> None:
    first = term_for(1, 1, memory=0.5, normalize="none", scope="batch")
    first(outputs(line((0,))), outputs(line((0,))), batch_of(torch.tensor([[[0]]])))
    torch.save(first.state_dict(), tmp_path / "term.pt")
    second = term_for(1, 1, memory=0.5, normalize="none", scope="batch")
    second.load_state_dict(torch.load(tmp_path / "term.pt", weights_only=True))
    # Class 0 is remembered at 0 and 0: (4 - 10)^2 = 36.
    loss = second(outputs(line((4,))), outputs(line((10,))), batch_of(torch.tensor([[[1]]])))
    assert loss.item() == pytest.approx(36)


def test_a_class_below_min_pixels_is_not_stored() -> None:
    term = term_for(1, 1, memory=0.5, normalize="none", scope="batch", min_pixels=2)
    term(outputs(line((0,), (0,), (9,))), outputs(line((0,), (0,), (9,))), batch_of(torch.tensor([[[0, 0, 1]]])))
    # Class 1 had one cell. Class 2 (1 and 3) meets class 0 alone: (1 - 3)^2 = 4.
    loss = term(outputs(line((1,), (1,))), outputs(line((3,), (3,))), batch_of(torch.tensor([[[2, 2]]])))
    assert loss.item() == pytest.approx(4)


def test_memory_with_nothing_present_is_zero_with_a_gradient() -> None:
    term = term_for(1, 1, memory=0.5, normalize="mean", scope="batch")
    term(outputs(line((0,), (1,))), outputs(line((0,), (1,))), batch_of(torch.tensor([[[0, 1]]])))
    student = line((5,), (6,)).requires_grad_()
    loss = term(outputs(student), outputs(line((7,), (9,))), batch_of(torch.full((1, 1, 2), 255)))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()
