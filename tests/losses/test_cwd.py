"""Channel-wise distillation: values by hand and equality with the literal reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from idd_seg.losses.cwd import ChannelWise, channel_wise
from idd_seg.losses.ops.adapters import Adapter
from idd_seg.types import Batch, Outputs
from tests.losses.reference import log_softmax
from tests.losses.scenes import random_features

# Teacher (1/4, 3/4), student (1/2, 1/2).
BY_HAND = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)


def reference(student: Tensor, teacher: Tensor, temperature: float) -> float:
    n, c, _, _ = student.shape
    total = 0.0
    for image in range(n):
        for channel in range(c):
            log_s = log_softmax((student[image, channel].flatten() / temperature).tolist())
            log_t = log_softmax((teacher[image, channel].flatten() / temperature).tolist())
            total += sum(math.exp(t) * (t - s) for s, t in zip(log_s, log_t, strict=True))
    return temperature**2 * total / (n * c)


def channels(*rows: tuple[float, ...]) -> Tensor:
    """A map (1, C, 1, w) by its channels."""
    return torch.tensor(rows, dtype=torch.float64)[None, :, None]


def test_value_by_hand() -> None:
    loss = channel_wise(channels((0, 0)), channels((0, math.log(3))), temperature=1.0)
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)


def test_the_mean_is_over_channels_and_images_and_the_sum_over_positions() -> None:
    student = torch.cat([channels((0, 0), (5, 5)), channels((1, 1), (0, 0))])
    teacher = torch.cat([channels((0, math.log(3)), (5, 5)), channels((2, 2), (0, 0))])
    loss = channel_wise(student, teacher, temperature=1.0)
    assert loss.item() == pytest.approx(BY_HAND / 4, rel=1e-9)
    # Each half of the positions has half of the probability: the divergence stays.
    twice = channel_wise(torch.cat([student, student], 2), torch.cat([teacher, teacher], 2), temperature=1.0)
    assert twice.item() == pytest.approx(BY_HAND / 4, rel=1e-9)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    loss = channel_wise(channels((0, math.log(3))), channels((0, 0)), temperature=1.0)
    assert loss.item() == pytest.approx(0.5 * math.log(2) - 0.5 * math.log(1.5), rel=1e-9)


def test_temperature_by_hand() -> None:
    # 4 ln 3 at T = 4 is ln 3 at T = 1; the factor is T^2 = 16.
    loss = channel_wise(channels((0, 0)), channels((0, 4 * math.log(3))), temperature=4.0)
    assert loss.item() == pytest.approx(16 * BY_HAND, rel=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(shape: tuple[int, int, int, int], temperature: float, seed: int) -> None:
    student, teacher = 3 * random_features(*shape, seed=seed), 3 * random_features(*shape, seed=seed + 1)
    loss = channel_wise(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(reference(student, teacher, temperature), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("width", [2, 1000])
def test_few_and_many_channels(width: int) -> None:
    student, teacher = random_features(2, width, 3, 3), random_features(2, width, 3, 3, seed=1)
    loss = channel_wise(student.float(), teacher.float(), temperature=4.0)
    assert loss.item() == pytest.approx(reference(student, teacher, 4.0), rel=1e-5)


def test_gradient_equals_finite_differences() -> None:
    student, teacher = random_features(2, 3, 2, 2).requires_grad_(), random_features(2, 3, 3, 1, seed=1)
    assert torch.autograd.gradcheck(lambda x: channel_wise(x, teacher, temperature=2.0), student)


def test_what_underflows_as_a_probability_still_counts() -> None:
    # exp(-500) is 0 in float32, and its logarithm -inf.
    student = torch.tensor([0.0, -500.0]).reshape(1, 1, 1, 2).requires_grad_()
    loss = channel_wise(student, torch.zeros(1, 1, 1, 2), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * math.log(0.5) * 2 + 0.5 * 500)
    assert student.grad is not None
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([0.5, -0.5]))


def test_logits_need_no_adapter_and_features_one_where_widths_differ() -> None:
    for tap, widths, kind in (
        ("logits", (3, 5), nn.Identity),
        ("head", (5, 5), nn.Identity),
        ("head", (3, 5), Adapter),
    ):
        term = ChannelWise(tap=tap)
        term.bind({"head": widths[0]}, {"head": widths[1]})
        assert type(term.adapter) is kind, (tap, widths)


def test_the_mean_is_over_the_channels_of_the_teacher() -> None:
    torch.manual_seed(0)
    term = ChannelWise(tap="head", temperature=4.0)
    term.bind({"head": 2}, {"head": 6})
    student, teacher = random_features(2, 2, 3, 3, dtype=torch.float32), random_features(2, 6, 3, 3, seed=1)
    batch = Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 3, dtype=torch.long), torch.zeros(2, 4), ["x", "x"])
    value = term(Outputs(student, {"head": student}), Outputs(teacher, {"head": teacher}), batch)
    adapted = term.adapter(student).detach().double()
    assert value.item() == pytest.approx(reference(adapted, teacher, 4.0), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_bad_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        ChannelWise(temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        channel_wise(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), temperature=temperature)
