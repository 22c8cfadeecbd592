"""Attention-guided features: values by hand, the literal reference, what is trained, and what stays as it was drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from idd_seg.losses.attnfd import AttentionGuided, scaled_distance
from idd_seg.losses.ops.attention import Attention, pooled_attention
from idd_seg.losses.ops.connector import Connector
from tests.losses.scenes import batch_of, descend, outputs_of, random_features

LABELS = torch.zeros(2, 4, 4, dtype=torch.long)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def attention_reference(x: Tensor, module: Attention) -> Tensor:
    """Image by image and value by value; the BatchNorm over all images and positions."""
    n, width, height, across = x.shape
    w1, b1, w2, b2 = (p.tolist() for p in (*module.squeeze.parameters(), *module.expand.parameters()))

    def logits(pooled: list[float]) -> list[float]:
        hidden = [
            max(0.0, b + sum(w * v for w, v in zip(row, pooled, strict=True))) for row, b in zip(w1, b1, strict=True)
        ]
        return [b + sum(w * v for w, v in zip(row, hidden, strict=True)) for row, b in zip(w2, b2, strict=True)]

    out, kernel, maps = x.clone(), module.spatial.weight[0].tolist(), []
    for image in range(n):
        channels = [x[image, c].flatten().tolist() for c in range(width)]
        mean, top = logits([sum(v) / len(v) for v in channels]), logits([max(v) for v in channels])
        for c in range(width):
            out[image, c] *= sigmoid(mean[c] + top[c])
        pooled = [out[image].amax(0).tolist(), out[image].mean(0).tolist()]
        for i in range(height):
            for j in range(across):
                total = 0.0
                for k in range(2):
                    for di in range(7):
                        for dj in range(7):
                            y, z = i + di - 3, j + dj - 3
                            if 0 <= y < height and 0 <= z < across:
                                total += kernel[k][di][dj] * pooled[k][y][z]
                maps.append(total)
    mean_of_all = sum(maps) / len(maps)
    deviation = math.sqrt(sum((v - mean_of_all) ** 2 for v in maps) / len(maps) + 1e-5)
    weights = torch.tensor([sigmoid((v - mean_of_all) / deviation) for v in maps], dtype=torch.float64)
    return out * weights.view(n, 1, height, across)


def test_value_by_hand() -> None:
    # Root mean squares 5 / sqrt 2 and 2 / sqrt 2: (0.6, 0.8) sqrt 2 against (0, 1) sqrt 2.
    student, teacher = (torch.tensor(x).reshape(1, 2, 1, 1) for x in ([3.0, 4.0], [0.0, 2.0]))
    assert scaled_distance(student, teacher).item() == pytest.approx(0.36 + 0.04)


def test_it_is_twice_what_the_cosine_of_the_batch_lacks_and_free_of_scale() -> None:
    student, teacher = random_features(3, 4, 2, 5), random_features(3, 4, 2, 5, seed=1)
    cosine = torch.cosine_similarity(student.flatten(), teacher.flatten(), dim=0)
    torch.testing.assert_close(scaled_distance(student, teacher), 2 - 2 * cosine)
    torch.testing.assert_close(scaled_distance(7 * student, 0.3 * teacher), 2 - 2 * cosine)


@pytest.mark.parametrize("fixed", [False, True])
def test_attention_equals_the_literal_reference(fixed: bool) -> None:
    torch.manual_seed(0)
    module, x = Attention(6, fixed=fixed).double(), random_features(2, 6, 4, 5)
    torch.testing.assert_close(module(x), attention_reference(x, module), rtol=1e-9, atol=1e-12)
    assert fixed is not any(p.requires_grad for p in module.parameters())


def test_attention_without_parameters_by_hand() -> None:
    # Channels 1, 3 and 0, 2: mean + maximum 2 + 3 and 1 + 2.
    a, b = sigmoid(5), sigmoid(3)
    x = torch.tensor([[1.0, 3.0], [0.0, 2.0]]).reshape(1, 2, 1, 2)
    first, second = (a + a / 2, 3 * a + (3 * a + 2 * b) / 2)
    expected = torch.tensor([[a * sigmoid(first), 3 * a * sigmoid(second)], [0.0, 2 * b * sigmoid(second)]])
    torch.testing.assert_close(pooled_attention(x)[0, :, 0], expected)


def test_a_fixed_attention_is_the_same_in_training_and_evaluation() -> None:
    torch.manual_seed(0)
    module, x = Attention(4, fixed=True), random_features(2, 4, 3, 3, dtype=torch.float32)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert torch.equal(module.train()(x), module.eval()(x))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(0)
    attention, connector = Attention(2).double(), Connector(2, 3).double()
    student, teacher = random_features(2, 2, 2, 2).requires_grad_(), random_features(2, 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: scaled_distance(connector(attention(x)), teacher), student)


@pytest.mark.parametrize("training", [True, False])
def test_the_distance_by_sums_is_that_of_the_maps(training: bool) -> None:
    torch.manual_seed(0)
    modules = nn.ModuleList([Attention(3), Connector(3, 4)]).double().train(training)
    attention, connector = modules
    assert isinstance(attention, Attention)
    assert isinstance(connector, Connector)
    with torch.no_grad():
        connector.norm.weight.copy_(torch.tensor([1.0, 0.5, -2.0, 1.5]))
        connector.norm.bias.copy_(torch.tensor([0.3, 0.0, -1.0, 2.0]))
    x, teacher = random_features(2, 3, 3, 4).requires_grad_(), random_features(2, 4, 3, 4, seed=1)
    leaves = [x, *modules.parameters()]
    start = {key: value.clone() for key, value in modules.state_dict().items()}
    plain = scaled_distance(connector(attention(x)), teacher)
    expected = torch.autograd.grad(plain, leaves)
    after = {key: value.clone() for key, value in modules.state_dict().items()}
    modules.load_state_dict(start)
    found = connector.distance(x, *attention.weights(x), teacher)
    torch.testing.assert_close(found, plain)
    for ours, gradient in zip(torch.autograd.grad(found, leaves), expected, strict=True):
        torch.testing.assert_close(ours, gradient)
    for key, value in modules.state_dict().items():
        torch.testing.assert_close(value, after[key])


@pytest.mark.parametrize("kind", ["fixed", "pooled"])
def test_the_term_is_the_mean_over_its_maps_and_trains_what_it_should(kind: str) -> None:
    torch.manual_seed(0)
    term = AttentionGuided(teacher_attention=kind)
    term.bind({"stage4": 3, "head": 4}, {"stage4": 5, "head": 6})
    names = {key.split(".")[0] for key in term.state_dict()}
    assert names == {"students", "connectors"} | ({"teachers"} if kind == "fixed" else set())
    drawn = {key: value.clone() for key, value in term.teachers.state_dict().items()}
    maps = {tap: random_features(2, width, 4, 4, dtype=torch.float32) for tap, width in (("stage4", 3), ("head", 4))}
    theirs = {
        tap: random_features(2, width, 4, 4, seed=1, dtype=torch.float32) for tap, width in (("stage4", 5), ("head", 6))
    }
    student, teacher = outputs_of(maps["head"], **maps), outputs_of(theirs["head"], **theirs)
    expected = []
    for tap in ("stage4", "head"):
        refined = term.teachers[tap](theirs[tap]) if kind == "fixed" else pooled_attention(theirs[tap])
        expected.append(scaled_distance(term.connectors[tap](term.students[tap](maps[tap])), refined))
    torch.testing.assert_close(
        term(student, teacher, batch_of(LABELS)), torch.stack(expected).mean(), rtol=1e-5, atol=1e-6
    )
    head = maps["head"].clone().requires_grad_()
    trained = [p for p in term.parameters() if p.requires_grad]
    losses = descend(
        head,
        lambda x: term(outputs_of(x, **{**maps, "head": x}), teacher, batch_of(LABELS)),
        steps=60,
        lr=0.05,
        others=trained,
    )
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in trained)
    assert all(torch.equal(value, drawn[key]) for key, value in term.teachers.state_dict().items())
    assert term.label_use == "none"


@pytest.mark.parametrize("size", [(1, 1), (1, 3)])
def test_a_single_value_has_finite_losses_and_gradients(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    term = AttentionGuided(taps=["head"])
    term.bind({"head": 3}, {"head": 2})
    x = random_features(1, 3, *size, dtype=torch.float32).requires_grad_()
    y = random_features(1, 2, *size, seed=1, dtype=torch.float32)
    loss = term(outputs_of(x, head=x), outputs_of(y, head=y), batch_of(LABELS[:1]))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_of_the_run_leaves_the_modules_in_float32() -> None:
    torch.manual_seed(0)
    term = AttentionGuided(taps=["head"])
    term.bind({"head": 3}, {"head": 2})
    term.to(torch.bfloat16)
    x, y = random_features(2, 3, 2, 2, dtype=torch.bfloat16), random_features(2, 2, 2, 2, seed=1, dtype=torch.bfloat16)
    assert term(outputs_of(x, head=x), outputs_of(y, head=y), batch_of(LABELS)).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in term.parameters())


@pytest.mark.parametrize("taps", [[], "head", ["head", "head"]])
def test_taps_must_be_different_maps(taps: list[str]) -> None:
    with pytest.raises(ValueError, match="taps must be a list"):
        AttentionGuided(taps=taps)


def test_unknown_options_and_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"teacher_attention.*fixed, pooled.*'none'"):
        AttentionGuided(teacher_attention="none")  # type: ignore[arg-type]
    for tap in ("logits", "stage9"):
        with pytest.raises(ValueError, match=rf"'{tap}'.*head"):
            AttentionGuided(taps=[tap]).bind({"head": 3}, {"head": 3})
