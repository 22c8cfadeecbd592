"""Masked generation: a value by hand, the literal reference, gradients, and what is trained beside the student."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from idd_seg.losses.mgd import MaskedGeneration, masked_generation
from idd_seg.losses.ops.masked_generation import Generator, kept_positions
from tests.losses.scenes import batch_of, descend, outputs_of, random_features

LABELS = torch.zeros(2, 4, 4, dtype=torch.long)


def convolve(x: list[list[list[float]]], layer: nn.Conv2d) -> list[list[list[float]]]:
    """A 3 x 3 convolution with zeros around, sum by sum."""
    weight, bias = layer.weight.tolist(), (layer.bias if layer.bias is not None else torch.zeros(0)).tolist()
    height, width = len(x[0]), len(x[0][0])
    out = [[[0.0] * width for _ in range(height)] for _ in bias]
    for c, start in enumerate(bias):
        for i in range(height):
            for j in range(width):
                total = start
                for k in range(len(x)):
                    for di in range(3):
                        for dj in range(3):
                            y, z = i + di - 1, j + dj - 1
                            if 0 <= y < height and 0 <= z < width:
                                total += weight[c][k][di][dj] * x[k][y][z]
                out[c][i][j] = total
    return out


def reference(student: Tensor, teacher: Tensor, kept: Tensor, generator: Generator) -> float:
    total = 0.0
    for image in range(len(student)):
        x = (student[image] * kept[image]).tolist()
        hidden = [[[max(0.0, v) for v in row] for row in channel] for channel in convolve(x, generator.first)]
        made = torch.tensor(convolve(hidden, generator.second), dtype=torch.float64)
        total += float((made - teacher[image]).square().sum())
    return total / teacher.numel()


def test_value_by_hand() -> None:
    # Of 1, 2, 3 the second is dropped and doubled by G: 2, 0, 6 against 1, 1, 1.
    student = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    kept = torch.tensor([True, False, True]).reshape(1, 1, 1, 3)
    loss = masked_generation(student, torch.ones(1, 1, 1, 3), kept, lambda x, kept: 2 * x * kept)
    assert loss.item() == pytest.approx((1 + 1 + 25) / 3)


def test_equals_the_literal_reference() -> None:
    torch.manual_seed(0)
    generator = Generator(3).double()
    student, teacher = random_features(2, 3, 3, 4), random_features(2, 3, 3, 4, seed=1)
    kept = kept_positions(student, 0.5)
    assert 0 < kept.sum() < kept.numel()
    found = masked_generation(student, teacher, kept, generator)
    assert found.item() == pytest.approx(reference(student, teacher, kept, generator), rel=1e-9)


def test_gradient_equals_finite_differences() -> None:
    torch.manual_seed(0)
    generator, kept = Generator(2).double(), torch.tensor([True, False, True, True]).reshape(1, 1, 2, 2)
    student, teacher = random_features(1, 2, 2, 2).requires_grad_(), random_features(1, 2, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: masked_generation(x, teacher, kept, generator), student)


def test_gradients_of_a_generator_are_those_of_plain_convolutions() -> None:
    torch.manual_seed(0)
    generator, kept = Generator(2).double(), torch.tensor([True, False, True, True]).reshape(1, 1, 2, 2)
    x = random_features(1, 2, 2, 2).requires_grad_()
    leaves = [x, *generator.parameters()]
    found = torch.autograd.grad(generator(x, kept).square().sum(), leaves)
    plain = generator.second(generator.first(x * kept).relu()).square().sum()
    for ours, expected in zip(found, torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_dropped_position_gets_no_gradient_and_a_kept_one_does() -> None:
    torch.manual_seed(0)
    generator, kept = Generator(2).double(), torch.tensor([True, False]).reshape(1, 1, 1, 2)
    student = random_features(1, 2, 1, 2).requires_grad_()
    masked_generation(student, random_features(1, 2, 1, 2, seed=1), kept, generator).backward()
    assert student.grad is not None
    assert not student.grad[..., 1].any()
    assert student.grad[..., 0].any()


def test_the_loss_goes_with_the_square_of_the_scale() -> None:
    student, teacher = random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)
    kept = kept_positions(student, 0.5)
    once, thrice = (masked_generation(f * student, f * teacher, kept, lambda x, kept: x * kept).item() for f in (1, 3))
    assert thrice == pytest.approx(9 * once)


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 1.0), (0.75, 0.25)])
def test_the_share_of_kept_positions(ratio: float, share: float) -> None:
    torch.manual_seed(0)
    kept = kept_positions(torch.zeros(4, 7, 50, 50), ratio)
    assert kept.shape == (4, 1, 50, 50)
    assert kept.float().mean().item() == pytest.approx(share, abs=0.02)
    assert torch.equal(kept_positions(torch.zeros(1, 1, 5, 5), 0.0), torch.ones(1, 1, 5, 5, dtype=torch.bool))


def test_each_step_draws_anew_and_a_seed_repeats_it() -> None:
    torch.manual_seed(3)
    first, second = (kept_positions(torch.zeros(1, 1, 9, 9), 0.5) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(first, kept_positions(torch.zeros(1, 1, 9, 9), 0.5))
    assert not torch.equal(first, second)


def test_adapter_and_generator_are_trained_with_the_student() -> None:
    torch.manual_seed(0)
    term = MaskedGeneration(mask_ratio=0.5)
    term.bind({"stage4": 3}, {"stage4": 5})
    assert {key.split(".")[0] for key in term.state_dict()} == {"adapter", "generator"}
    student = random_features(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    theirs = random_features(2, 5, 3, 5, seed=1, dtype=torch.float32)
    teacher = outputs_of(theirs, stage4=theirs)

    def loss_of(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return term(outputs_of(x, stage4=x), teacher, batch_of(LABELS))

    losses = descend(student, loss_of, steps=80, lr=0.05, others=term.parameters())
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in term.parameters())


def test_equal_widths_have_no_adapter_and_labels_do_not_matter() -> None:
    torch.manual_seed(0)
    term = MaskedGeneration()
    term.bind({"stage4": 3}, {"stage4": 3})
    assert {key.split(".")[0] for key in term.state_dict()} == {"generator"}
    x, y = (outputs_of(m, stage4=m) for m in (random_features(2, 3, 4, 4), random_features(2, 3, 4, 4, seed=1)))
    values = []
    for labels in (LABELS, torch.full_like(LABELS, 255)):
        torch.manual_seed(1)
        values.append(term(x, y, batch_of(labels)).item())
    assert values[0] == values[1] > 0
    assert term.label_use == "none"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_generator_computes_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    generator, x = Generator(3), random_features(2, 3, 4, 4, dtype=dtype)
    kept = kept_positions(x, 0.5)
    expected = generator.double()(x.double(), kept)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = generator.float()(x, kept)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, math.nan])
def test_a_bad_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio.*{ratio}"):
        MaskedGeneration(mask_ratio=ratio)


def test_logits_and_unknown_maps_are_refused() -> None:
    for tap in ("logits", "stage9"):
        with pytest.raises(ValueError, match=rf"'{tap}'.*stage4"):
            MaskedGeneration(tap=tap).bind({"stage4": 3}, {"stage4": 3})
