"""The discriminator, its two objectives, and the term that hands its judgement to a student."""

from __future__ import annotations

import io
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from idd_seg.losses.adversarial import Adversarial, predictions
from idd_seg.losses.ops.discriminator import (
    Discriminator,
    frozen_discriminator,
    gradient_penalty,
    hinge_loss,
    wasserstein_loss,
)
from idd_seg.losses.ops.inner_step import own_step
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features, random_labels
from tests.ranks import ranks_of

K = 4
OBJECTIVES = ("hinge", "wgan_gp")
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)


class Linear(nn.Module):
    """Scores a position by one number of its vector, weighted, so that slopes are known."""

    def __init__(self, slope: float, offset: float = 0.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.offset = offset

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.slope * x[:, :1] + self.offset


def maps(*values: float) -> Tensor:
    """Maps of one channel and one position, an image each."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def all_of(count: int) -> Tensor:
    return torch.ones(count, 1, 1, 1, dtype=torch.bool)


def no_image(x: Tensor) -> Tensor:
    return x.new_zeros(len(x), 3, *x.shape[2:])


# The objectives.


def test_hinge_by_hand() -> None:
    # Scores of the teacher 0.5 and 3: 0.5 + 0. Of the student -2 and 0.5: 0 + 1.5. Means 0.25 and 0.75.
    real, fake = maps(0.25, 1.5), maps(-1.0, 0.25)
    loss = hinge_loss(Linear(2.0), real, fake, no_image(real), all_of(2))
    assert loss.item() == pytest.approx(0.25 + 0.75)


def test_images_that_do_not_count_are_left_out() -> None:
    real, fake, counted = maps(0.25, 1.5), maps(-1.0, 0.25), torch.tensor([False, True]).view(2, 1, 1, 1)
    assert hinge_loss(Linear(2.0), real, fake, no_image(real), counted).item() == pytest.approx(1.5)
    loss = wasserstein_loss(Linear(2.0), real, fake, no_image(real), counted, penalty=10.0)
    assert loss.item() == pytest.approx(0.5 - 3.0 + 10.0)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5)])
@pytest.mark.parametrize("slope", [0.0, 1.0, -3.0])
def test_the_penalty_of_a_linear_score_by_hand(slope: float, size: tuple[int, int]) -> None:
    """The mean score moves by slope per root mean square difference, on every grid."""
    x = random_features(2, 3, *size)
    # The slope of the mean is slope / P at each of P positions: its square, summed and times P, is slope^2.
    penalty = gradient_penalty(Linear(slope), x, no_image(x))
    assert penalty.flatten().tolist() == pytest.approx([(abs(slope) - 1) ** 2] * 2, abs=1e-5)


def test_wasserstein_by_hand() -> None:
    # Scores of the teacher 2 and 4, of the student 1 and -1: 0 - 3, and 10 * (2 - 1)^2.
    real, fake = maps(1.0, 2.0), maps(0.5, -0.5)
    loss = wasserstein_loss(Linear(2.0), real, fake, no_image(real), all_of(2), penalty=10.0)
    assert loss.item() == pytest.approx(-3.0 + 10.0)


def test_the_penalty_is_taken_between_the_two_at_a_place_of_each_image() -> None:
    places = []

    class Watched(Linear):
        def forward(self, x: Tensor, image: Tensor) -> Tensor:
            places.append(x.detach().clone())
            return super().forward(x, image)

    real, fake = torch.full((5, 1, 2, 2), 3.0), torch.full((5, 1, 2, 2), 1.0)
    torch.manual_seed(0)
    wasserstein_loss(Watched(1.0), real.double(), fake.double(), no_image(real.double()), all_of(5), penalty=1.0)
    shares = (places[-1] - 1) / 2
    assert (shares == shares[:, :, :1, :1]).all()
    assert len(set(shares[:, 0, 0, 0].tolist())) == 5
    assert 0 < shares.min() < shares.max() < 1


def test_the_penalty_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    network = Discriminator(2, width=3, spectral=False).double()
    x, image = random_features(2, 2, 3, 3), random_features(2, 3, 3, 3, seed=1)
    step, expected = 1e-6, []
    for n in range(2):
        total = 0.0
        for place in range(2 * 9):
            shift = torch.zeros(18, dtype=torch.float64)
            shift[place] = step
            ahead, behind = (
                network(x[n : n + 1] + s * shift.view(1, 2, 3, 3), image[n : n + 1]).mean().item() for s in (1, -1)
            )
            total += ((ahead - behind) / (2 * step)) ** 2
        expected.append((math.sqrt(9 * total) - 1) ** 2)
    assert gradient_penalty(network, x, image).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_penalty_pulls_the_slope_to_one() -> None:
    for start in (0.1, 3.0):
        network, x = Linear(start), maps(1.0, 2.0)
        losses = descend(network.slope, lambda _: gradient_penalty(network, x, no_image(x)).mean(), steps=100)  # noqa: B023
        assert losses[-1] < 0.05 * losses[0]


def test_the_gradient_of_the_penalty_is_finite_where_nothing_has_a_slope() -> None:
    """The root of a squared slope has an infinite gradient at zero."""
    network = Discriminator(K, width=2, spectral=False)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    x = random_features(2, K, 4, 4, dtype=torch.float32)
    loss = gradient_penalty(network, x, no_image(x)).mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)
    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert all(g.isfinite().all() for g in gradients)


# The discriminator.


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    classes=st.sampled_from([1, 2, 19]),
    spectral=st.booleans(),
)
def test_every_grid_has_scores(images: int, size: tuple[int, int], classes: int, spectral: bool) -> None:
    network = Discriminator(classes, width=2, spectral=spectral).eval()
    scores = network(torch.rand(images, classes, *size), torch.rand(images, 3, *size))
    assert scores.shape == (images, 1, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("spectral", [True, False])
def test_images_do_not_meet(spectral: bool) -> None:
    network = Discriminator(K, width=4, spectral=spectral).eval()
    x, image = torch.rand(3, K, 8, 8), torch.rand(3, 3, 8, 8)
    together = network(x, image)
    alone = torch.cat([network(x[i : i + 1], image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_spectral_weights_have_a_largest_singular_value_of_one() -> None:
    torch.manual_seed(0)
    network = Discriminator(K, width=8).train()
    for _ in range(50):
        network(torch.rand(1, K, 8, 8), torch.rand(1, 3, 8, 8))
    for layer in network.eval().layers:
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


def test_the_image_counts() -> None:
    network, x = Discriminator(K, width=4).eval(), torch.rand(1, K, 8, 8)
    assert not torch.allclose(network(x, torch.rand(1, 3, 8, 8)), network(x, torch.rand(1, 3, 8, 8)))


@pytest.mark.parametrize(("classes", "width"), [(0, 4), (4, 0)])
def test_bad_sizes_are_refused(classes: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number >= 1, got '0'"):
        Discriminator(classes, width)


def test_a_step_takes_the_gradient_of_its_loss_and_leaves_none_behind() -> None:
    torch.manual_seed(0)
    network, optimizer = frozen_discriminator(K, 4, spectral=False, lr=0.01)
    x, image = torch.rand(2, K, 8, 8), torch.rand(2, 3, 8, 8)
    before = network(x, image).mean()
    loss = own_step(network, optimizer, lambda: network(x, image).mean())
    assert loss.item() == before.item()
    assert network(x, image).mean() < before
    assert not loss.requires_grad
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


# The term.


def batch_of(labels: Tensor, seed: int = 9) -> Batch:
    image = random_features(len(labels), 3, *labels.shape[1:], seed=seed, dtype=torch.float32)
    return Batch(image, labels, torch.zeros(len(labels), 4), ["x"] * len(labels))


def outputs(logits: Tensor) -> Outputs:
    return Outputs(logits, {"head": logits})


def scene(seed: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Outputs:
    return outputs((scale * random_features(*(shape or (2, K, 8, 8)), seed=seed)).to(dtype))


def term_for(objective: str = "hinge", num_classes: int = K, **options: Any) -> Adversarial:
    torch.manual_seed(0)
    term = Adversarial(num_classes, objective=objective, **{"width": 8, **options})
    term.bind({"head": 3}, {"head": 5})
    return term.train()


BATCH = batch_of(random_labels(2, 16, 16, num_classes=K))
# A teacher is surer than its student.
TEACHER, STUDENT = scene(0, scale=4.0), scene(1)


def state_of(term: Adversarial) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in term.discriminator.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def reference(term: Adversarial, logits: Tensor, batch: Batch) -> float:
    """The definition, an image and a position at a time."""
    n, k, h, w = logits.shape
    _, height, width = batch.label.shape
    network, scores = term.discriminator.double(), []
    for i in range(n):
        seen, image, any_valid = torch.zeros(1, k, h, w).double(), torch.zeros(1, 3, h, w).double(), False
        for y in range(h):
            for x in range(w):
                if batch.label[i, y * height // h, x * width // w] == 255:
                    continue
                any_valid = True
                exps = [math.exp(v) for v in logits[i, :, y, x].tolist()]
                seen[0, :, y, x] = torch.tensor([v / sum(exps) for v in exps], dtype=torch.float64)
                rows = slice(y * height // h, (y + 1) * height // h)
                columns = slice(x * width // w, (x + 1) * width // w)
                image[0, :, y, x] = batch.image[i, :, rows, columns].double().mean((1, 2))
        if any_valid:
            scores.append(network(seen, image).mean().item())
    network.float()
    return -sum(scores) / len(scores) if scores else 0.0


@each_objective
@pytest.mark.parametrize("grid", [(1, 1), (4, 8), (16, 16)])
def test_the_loss_is_the_mean_score_with_its_sign_turned(objective: str, grid: tuple[int, int]) -> None:
    term = term_for(objective)
    term.update(STUDENT, TEACHER, BATCH)
    labels = BATCH.label.clone()
    labels[0, 0, 0] = 1
    batch, student = Batch(BATCH.image, labels, BATCH.box, BATCH.names), scene(3, 2, K, *grid)
    loss = term(student, TEACHER, batch)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(reference(term, student.logits, batch), rel=1e-4, abs=1e-6)


def test_predictions_are_probabilities_where_they_count() -> None:
    counted = torch.tensor([[[[True, False]]]])
    probabilities = predictions(torch.tensor([[[[0.0, 7.0]], [[math.log(3), 7.0]]]]), counted)
    torch.testing.assert_close(probabilities, torch.tensor([[[[0.25, 0.0]], [[0.75, 0.0]]]]))


def with_much_of_one_class(logits: Tensor) -> Outputs:
    return outputs(logits + 3 * (torch.arange(K) == 0).view(-1, 1, 1))


@each_objective
def test_the_discriminator_learns_to_tell_them_apart(objective: str) -> None:
    term, teacher = term_for(objective, lr=3e-3), with_much_of_one_class(TEACHER.logits / 4)
    before = term.measure(STUDENT, teacher, BATCH)["gap"]
    for step in range(150):
        term.update(scene(100 + step), with_much_of_one_class(scene(300 + step).logits), BATCH)
    gap = term.measure(STUDENT, teacher, BATCH)["gap"]
    assert gap > before + 0.3
    # With a slope of 1, no further than the maps lie apart.
    apart = (teacher.logits.softmax(1) - STUDENT.logits.softmax(1)).square().sum(1).mean().sqrt()
    assert objective == "hinge" or gap < 1.3 * apart


@each_objective
def test_a_student_learns_to_pass(objective: str) -> None:
    """Taught by the discriminator alone, it becomes about as sure as its teacher."""
    term, student = term_for(objective, lr=3e-3), STUDENT.logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)

    def sureness(logits: Tensor) -> float:
        return logits.softmax(1).amax(1).mean().item()

    assert sureness(TEACHER.logits) > sureness(student) + 0.25
    for step in range(300):
        term.update(outputs(student), scene(300 + step, scale=4.0), BATCH)
        optimizer.zero_grad()
        term(outputs(student), TEACHER, BATCH).backward()
        optimizer.step()
    assert student.isfinite().all()
    assert sureness(student) > sureness(TEACHER.logits) - 0.15


@each_objective
def test_descent_lowers_the_loss(objective: str) -> None:
    term = term_for(objective)
    term.update(STUDENT, TEACHER, BATCH)
    losses = descend(STUDENT.logits.clone().requires_grad_(), lambda x: term(outputs(x), TEACHER, BATCH))
    assert losses[-1] < losses[0]


@each_objective
def test_gradient_equals_finite_differences(objective: str) -> None:
    term, batch = term_for(objective, width=2).double(), batch_of(random_labels(1, 6, 6, num_classes=K))
    student = random_features(1, K, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(outputs(x), TEACHER, batch), student)


@each_objective
def test_gradients_reach_the_student_only(objective: str) -> None:
    term, student, teacher = term_for(objective), scene(1), scene(0)
    assert not any(p.requires_grad for p in term.parameters())
    for x in (student, teacher):
        x.logits.requires_grad_()
    term.update(student, teacher, BATCH)
    assert student.logits.grad is None
    before = state_of(term)
    term.train()
    term(student, teacher, BATCH).backward()
    assert teacher.logits.grad is None
    assert student.logits.grad is not None
    assert student.logits.grad.any()
    assert all(p.grad is None for p in term.parameters())
    # The estimates of singular values are among them.
    assert same(before, state_of(term))
    assert not term.discriminator.training


@each_objective
def test_a_step_moves_every_weight(objective: str) -> None:
    term = term_for(objective)
    before = {name: p.clone() for name, p in term.discriminator.named_parameters()}
    term.update(STUDENT, TEACHER, BATCH)
    for name, parameter in term.discriminator.named_parameters():
        # The last bias cancels in the difference of scores, which within its margins the hinge is too.
        assert torch.equal(before[name], parameter) == (name == "layers.6.bias"), name


def test_ignored_pixels_take_no_part() -> None:
    labels = random_labels(2, 8, 8, num_classes=K)
    ignored = (labels == 255)[:, None]
    results = []
    for noise in (0.0, 30.0):
        term = term_for()
        batch = batch_of(labels)
        batch.image = torch.where(ignored, noise, batch.image)
        student, teacher = (outputs(torch.where(ignored, noise * x.logits, x.logits)) for x in (STUDENT, TEACHER))
        student.logits.requires_grad_()
        term.update(student, teacher, batch)
        loss = term(student, teacher, batch)
        loss.backward()
        results.append((loss.item(), state_of(term)))
        gradient = student.logits.grad
        assert gradient is not None
        assert not gradient[ignored.expand_as(gradient)].any()
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


@each_objective
def test_all_ignored_is_zero_with_a_gradient_and_teaches_nothing(objective: str) -> None:
    term, student = term_for(objective), scene(1)
    student.logits.requires_grad_()
    batch = batch_of(torch.full((2, 16, 16), 255))
    before = {name: p.clone() for name, p in term.discriminator.named_parameters()}
    term.update(student, TEACHER, batch)
    loss = term(student, TEACHER, batch)
    loss.backward()
    assert loss.item() == 0
    assert student.logits.grad is not None
    assert not student.logits.grad.any()
    assert same(before, dict(term.discriminator.named_parameters()))


def test_the_order_of_images_does_not_matter() -> None:
    term = term_for()
    batch = Batch(BATCH.image.flip(0), BATCH.label.flip(0), BATCH.box, BATCH.names)
    turned = term(outputs(STUDENT.logits.flip(0)), TEACHER, batch)
    torch.testing.assert_close(turned, term(STUDENT, TEACHER, BATCH))


@each_objective
@pytest.mark.parametrize("grid", [(1, 1), (3, 8), (16, 16)])
def test_the_grids_of_student_and_teacher_may_differ(objective: str, grid: tuple[int, int]) -> None:
    term, student = term_for(objective), scene(1, 2, K, *grid)
    before = state_of(term)
    term.update(student, TEACHER, BATCH)
    assert not same(before, state_of(term))
    assert term(student, TEACHER, BATCH).isfinite()


@each_objective
@pytest.mark.parametrize("num_classes", [2, 1000])
def test_few_and_many_classes_and_a_batch_of_one(objective: str, num_classes: int) -> None:
    term, batch = term_for(objective, num_classes), batch_of(torch.zeros(1, 4, 4, dtype=torch.long))
    for i in range(3):
        student = scene(i, 1, num_classes, 1, 1)
        term.update(student, scene(9 + i, 1, num_classes, 1, 1), batch)
        assert term(student, TEACHER, batch).isfinite()
    assert all(x.isfinite().all() for x in state_of(term).values())


@each_objective
def test_identical_networks_leave_the_discriminator_finite(objective: str) -> None:
    term = term_for(objective, lr=0.01)
    for _ in range(30):
        term.update(TEACHER, TEACHER, BATCH)
    assert all(x.isfinite().all() for x in state_of(term).values())
    assert term.measure(TEACHER, TEACHER, BATCH)["gap"] == 0


@each_objective
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits_are_never_nan(objective: str, scale: float) -> None:
    term, student = term_for(objective, lr=0.05), scene(1, scale=scale)
    student.logits.requires_grad_()
    for _ in range(20):
        term.update(student, scene(0, scale=1e4), BATCH)
    loss = term(student, TEACHER, BATCH)
    loss.backward()
    assert loss.isfinite()
    assert student.logits.grad is not None
    assert student.logits.grad.isfinite().all()
    assert all(x.isfinite().all() for x in state_of(term).values())


@each_objective
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(objective: str, dtype: torch.dtype) -> None:
    student, teacher = scene(1, dtype=dtype), scene(0, scale=4.0, dtype=dtype)
    results = []
    for autocast in (False, True):
        term = term_for(objective)
        pair = (student, teacher) if autocast else [outputs(x.logits.float()) for x in (student, teacher)]
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            term.update(*pair, BATCH)
            loss = term(*pair, BATCH)
        assert loss.dtype == torch.float32
        results.append((loss.item(), state_of(term)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


def run(term: Adversarial, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step)
        term.update(scene(step), scene(50 + step, scale=4.0), BATCH)
        losses.append(term(scene(step), TEACHER, BATCH).item())
    return losses


@each_objective
def test_a_run_that_goes_on_is_the_same_to_the_bit(objective: str) -> None:
    term, file = term_for(objective), io.BytesIO()
    run(term, range(4))
    torch.save(term.state_dict(), file)
    expected = run(term, range(4, 9))
    file.seek(0)
    other = term_for(objective)
    torch.manual_seed(99)
    other.bind({}, {})
    other.load_state_dict(torch.load(file, weights_only=True))
    assert run(other, range(4, 9)) == expected
    assert same(state_of(term), state_of(other))


def test_the_gap_is_the_difference_of_mean_scores() -> None:
    term = term_for()
    term.update(STUDENT, TEACHER, BATCH)
    gap = term.measure(STUDENT, TEACHER, BATCH)["gap"].item()
    expected = reference(term, STUDENT.logits, BATCH) - reference(term, TEACHER.logits, BATCH)
    assert gap == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("objective", "lsgan"),
        ("lr", 0.0),
        ("lr", math.nan),
        ("width", 0),
        ("width", 1.5),
        ("penalty", -1.0),
        ("penalty", math.inf),
        ("weight", -1.0),
    ],
)
def test_bad_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        Adversarial(K, **{option: value})


def test_a_teacher_of_other_classes_is_refused_and_one_is_needed() -> None:
    term = term_for()
    with pytest.raises(ValueError, match=f"student has {K} channels, the teacher 7"):
        term.update(STUDENT, scene(0, 2, 7, 8, 8), BATCH)
    with pytest.raises(ValueError, match="Adversarial needs a teacher"):
        term.update(STUDENT, None, BATCH)


# Two processes.


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        states = {}
        for objective in OBJECTIVES:
            term = term_for(objective)
            for step in range(3):
                torch.manual_seed(10 * step + rank)
                term.update(scene(step + 20 * rank), scene(90 + step + 20 * rank, scale=4.0), BATCH)
            states[objective] = state_of(term)
        torch.save(states, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_discriminators_stay_the_same_on_all_ranks(tmp_path: Path) -> None:
    ranks_of(work, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for objective in OBJECTIVES:
        assert same(first[objective], second[objective])
        assert not same(first[objective], state_of(term_for(objective)))
