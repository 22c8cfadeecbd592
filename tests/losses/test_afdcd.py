"""Dense contrast: a value by hand, the literal reference, gradients, borders, and what the term adds up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from idd_seg.losses.afdcd import DenseContrast, dense_contrast
from idd_seg.losses.ops.masked_generation import kept_positions
from tests.losses.scenes import batch_of, descend, outputs_of, random_features

LABELS = torch.zeros(2, 4, 4, dtype=torch.long)


def reference(student: Tensor, teacher: Tensor, pool: int, patch: int, groups: int, temperature: float) -> float:
    """Part by part; sides are whole multiples of window and patch."""
    n, width, height, across = student.shape
    pooled = []
    for x in (student.tolist(), teacher.tolist()):
        cells = {}
        for image in range(n):
            for i in range(height // pool):
                for j in range(across // pool):
                    window = [(i * pool + a, j * pool + b) for a in range(pool) for b in range(pool)]
                    cells[image, i, j] = [max(x[image][c][y][z] for y, z in window) for c in range(width)]
        pooled.append(cells)
    ours, theirs = pooled
    size, losses = width // groups, []

    def part(cells: dict[tuple[int, int, int], list[float]], place: tuple[int, int, int], group: int) -> list[float]:
        return cells[place][group * size : (group + 1) * size]

    for (image, i, j), _ in ours.items():
        for group in range(groups):
            mine = part(ours, (image, i, j), group)

            def similarity(place: tuple[int, int, int], other: int, mine: list[float] = mine) -> float:
                return -sum(abs(a - b) for a, b in zip(mine, part(theirs, place, other), strict=True)) / temperature

            positive = similarity((image, i, j), group)
            negatives = [
                similarity((image, y, z), other)
                for (m, y, z) in theirs
                if m == image and y // patch == i // patch and z // patch == j // patch
                for other in range(groups)
                if other != group
            ]
            losses.append(math.log(sum(math.exp(v - positive) for v in [positive, *negatives])))
    return sum(losses) / len(losses)


def test_value_by_hand() -> None:
    # One position, two groups of one channel: 1 and 3 against 2 and 3. Distances 1 and 2; 0 and 1.
    student, teacher = (torch.tensor(x).reshape(1, 2, 1, 1) for x in ([1.0, 3.0], [2.0, 3.0]))
    loss = dense_contrast(student, teacher, pool=1, patch=1, groups=2, temperature=1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert dense_contrast(student, teacher, pool=1, patch=1, groups=1, temperature=1.0).item() == 0


@pytest.mark.parametrize(("pool", "patch", "groups"), [(1, 1, 2), (1, 2, 3), (2, 2, 6), (2, 1, 2)])
def test_equals_the_literal_reference(pool: int, patch: int, groups: int) -> None:
    student, teacher = random_features(2, 6, 4, 8), random_features(2, 6, 4, 8, seed=1)
    loss = dense_contrast(student, teacher, pool=pool, patch=patch, groups=groups, temperature=0.7)
    assert loss.item() == pytest.approx(reference(student, teacher, pool, patch, groups, 0.7), rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(1, 4, 4, 4).requires_grad_(), random_features(1, 4, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: dense_contrast(x, teacher, pool=2, patch=2, groups=2), student)


def test_descent_lowers_the_loss_and_the_teacher_gets_no_gradient() -> None:
    student, teacher = (
        random_features(1, 4, 4, 4).requires_grad_(),
        random_features(1, 4, 4, 4, seed=1).requires_grad_(),
    )
    losses = descend(student, lambda x: dense_contrast(x, teacher, pool=1, patch=2, groups=2), steps=60, lr=0.05)
    assert losses[-1] < 0.5 * losses[0]
    assert teacher.grad is None


def test_what_hangs_over_the_last_window_or_patch_is_left_out() -> None:
    student, teacher = random_features(1, 4, 9, 11), random_features(1, 4, 9, 11, seed=1)
    options = {"pool": 2, "patch": 2, "groups": 2}
    cut = dense_contrast(student[..., :8, :8], teacher[..., :8, :8], **options)
    torch.testing.assert_close(dense_contrast(student, teacher, **options), cut)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 17)])
def test_small_maps_are_one_window_or_patch(size: tuple[int, int]) -> None:
    student, teacher = random_features(2, 16, *size).requires_grad_(), random_features(2, 16, *size, seed=1)
    loss = dense_contrast(student, teacher)
    loss.backward()
    assert loss.item() > 0
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_scale_and_temperature_are_one() -> None:
    student, teacher = random_features(1, 4, 4, 4), random_features(1, 4, 4, 4, seed=1)
    found = dense_contrast(5 * student, 5 * teacher, pool=1, patch=2, groups=2, temperature=5.0)
    torch.testing.assert_close(found, dense_contrast(student, teacher, pool=1, patch=2, groups=2, temperature=1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (random_features(2, 4, 4, 4, seed=seed, dtype=dtype) for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dense_contrast(student, teacher, pool=1, groups=2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        dense_contrast(student.double(), teacher.double(), pool=1, groups=2).item(), rel=1e-4
    )


@pytest.mark.parametrize(("regression", "contrast"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_the_term_adds_up_its_parts(regression: float, contrast: float) -> None:
    torch.manual_seed(0)
    term = DenseContrast(regression_weight=regression, contrast_weight=contrast, pool=1, patch=2, groups=4)
    term.bind({"stage4": 3}, {"stage4": 8})
    x, y = random_features(2, 3, 4, 4, dtype=torch.float32), random_features(2, 8, 4, 4, seed=1, dtype=torch.float32)
    torch.manual_seed(1)
    loss = term(outputs_of(x, stage4=x), outputs_of(y, stage4=y), batch_of(LABELS))
    torch.manual_seed(1)
    generated = term.generator(term.adapter(x), kept_positions(x, 0.75))
    expected = regression * (generated - y).square().mean()
    expected = expected + contrast * dense_contrast(generated, y, pool=1, patch=2, groups=4)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())
    assert {key.split(".")[0] for key in term.state_dict()} == {"adapter", "generator"}
    assert term.label_use == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 0}, "pool.*0"),
        ({"patch": 0}, "patch.*0"),
        ({"groups": 0}, "groups.*0"),
        ({"temperature": 0.0}, "temperature.*0"),
        ({"mask_ratio": 1.0}, "mask_ratio.*1"),
        ({"contrast_weight": -1.0}, "contrast_weight.*-1"),
        ({"contrast_weight": 0.0, "regression_weight": 0.0}, "regression_weight, contrast_weight"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseContrast(**options)


def test_a_width_that_the_groups_do_not_divide_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="groups=16 must divide the teacher's 40 channels"):
        DenseContrast().bind({"stage4": 8}, {"stage4": 40})
    with pytest.raises(ValueError, match="'logits'"):
        DenseContrast(tap="logits").bind({"stage4": 8}, {"stage4": 32})
