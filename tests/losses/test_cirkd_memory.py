"""Queues of the teacher's embeddings, and the divergence of similarities to them."""

from __future__ import annotations

import copy
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
from torch.nn.parallel import DistributedDataParallel

from idd_seg.losses import cirkd_memory
from idd_seg.losses.cirkd_memory import CrossImageMemory, entry_divergence
from idd_seg.losses.ops.adapters import Adapter
from idd_seg.losses.ops.class_queues import ClassQueues, draw
from idd_seg.types import Batch, Outputs
from tests.losses.reference import log_softmax
from tests.losses.scenes import descend, random_features, random_labels
from tests.ranks import ranks_of

K = 4


# The divergence.


def cosine(a: list[float], b: list[float]) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def reference(
    student: Tensor, teacher: Tensor, entries: Tensor, exists: list[bool], counted: list[bool], temperature: float
) -> float:
    known = [e for e, there in zip(entries.double().tolist(), exists, strict=True) if there]
    rows = []
    for s, t, counts in zip(student.tolist(), teacher.tolist(), counted, strict=True):
        if counts and known:
            log_s = log_softmax([cosine(s, e) / temperature for e in known])
            log_t = log_softmax([cosine(t, e) / temperature for e in known])
            rows.append(sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True)))
    return sum(rows) / len(rows) if rows else 0.0


def matrix(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def yes(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


# At T = 1 / ln 3, cosines 1 and 0 give 3/4 and 1/4, and equal cosines 1/2 and 1/2.
SHARP = 1 / math.log(3)
ENTRIES = matrix((1, 0), (0, 1))
TO_BOTH, TO_FIRST = matrix((2, 2)), matrix((5, 0))
BY_HAND = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)


def test_value_by_hand() -> None:
    loss = entry_divergence(TO_BOTH, TO_FIRST, ENTRIES, yes(2), yes(1), temperature=SHARP)
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)


def test_the_divergence_is_from_the_teacher_to_the_student() -> None:
    loss = entry_divergence(TO_FIRST, TO_BOTH, ENTRIES, yes(2), yes(1), temperature=SHARP)
    assert loss.item() == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-9)


def test_entries_that_are_not_there_and_vectors_that_do_not_count_take_no_part() -> None:
    entries = torch.cat([ENTRIES, matrix((-7, 3))])
    student, teacher = torch.cat([TO_BOTH, matrix((1, 9))]), torch.cat([TO_FIRST, matrix((3, -1))])
    exists, counted = torch.tensor([True, True, False]), torch.tensor([True, False])
    loss = entry_divergence(student, teacher, entries, exists, counted, temperature=SHARP)
    assert loss.item() == pytest.approx(BY_HAND, rel=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    anchors=st.integers(1, 6),
    count=st.integers(1, 9),
    width=st.integers(1, 4),
    temperature=st.sampled_from([0.1, 1.0]),
    similarities=st.sampled_from([1, 20, 10**6]),
    seed=st.integers(0, 999),
)
def test_equals_the_literal_reference(
    anchors: int, count: int, width: int, temperature: float, similarities: int, seed: int
) -> None:
    student, teacher, entries = (
        random_features(n, width, seed=seed + i) for i, n in enumerate((anchors, anchors, count))
    )
    exists = random_features(count, seed=seed + 3) > -0.5
    counted = random_features(anchors, seed=seed + 4) > -0.5
    loss = entry_divergence(
        student, teacher, entries, exists, counted, temperature=temperature, similarities=similarities
    )
    expected = reference(student, teacher, entries, exists.tolist(), counted.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("similarities", [1, 14, 10**6])
def test_gradient_equals_finite_differences(similarities: int) -> None:
    student, teacher, entries = (random_features(n, 3, seed=n) for n in (5, 5, 7))
    exists, counted = torch.arange(7) != 2, torch.arange(5) != 3
    assert torch.autograd.gradcheck(
        lambda x: (
            5 * entry_divergence(x, teacher, entries, exists, counted, temperature=0.3, similarities=similarities)
        ),
        student.requires_grad_(),
    )


def test_a_second_derivative_is_refused() -> None:
    student = random_features(2, 3).requires_grad_()
    loss = entry_divergence(
        student, random_features(2, 3, seed=1), ENTRIES.new_ones(2, 3), yes(2), yes(2), temperature=1
    )
    with pytest.raises(RuntimeError, match="entry_divergence can't be differentiated again"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_zero_for_identical_vectors() -> None:
    student = random_features(4, 3).requires_grad_()
    loss = entry_divergence(student, student.detach(), random_features(6, 3, seed=1), yes(6), yes(4), temperature=0.1)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize(("exists", "counted"), [(False, True), (True, False), (False, False)])
def test_zero_with_a_gradient_without_entries_or_vectors(exists: bool, counted: bool) -> None:
    student = random_features(4, 3).requires_grad_()
    loss = entry_divergence(
        student,
        random_features(4, 3, seed=1),
        random_features(6, 3, seed=2),
        torch.full((6,), exists),
        torch.full((4,), counted),
        temperature=0.1,
    )
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_a_vector_of_zeros_is_finite_and_gets_no_gradient() -> None:
    student = random_features(4, 3)
    student[1] = 0
    student.requires_grad_()
    loss = entry_divergence(
        student, random_features(4, 3, seed=1), random_features(6, 3, seed=2), yes(6), yes(4), temperature=0.1
    )
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not student.grad[1].any()
    assert student.grad[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher, entries = (random_features(n, 8, seed=n, dtype=dtype) for n in (5, 4, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = entry_divergence(student[:4], teacher, entries, yes(7), yes(4), temperature=0.1)
    expected = reference(student[:4].double(), teacher.double(), entries, [True] * 7, [True] * 4, 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_similarities_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    plain = cirkd_memory._log_rows

    def watched(rows: Tensor, entries: Tensor, *others: Any) -> Tensor:
        shapes.append(len(rows) * len(entries))
        return plain(rows, entries, *others)

    monkeypatch.setattr(cirkd_memory, "_log_rows", watched)
    student, teacher, entries = (random_features(n, 3, seed=n) for n in (50, 50, 40))
    entry_divergence(student, teacher, entries, yes(40), yes(50), temperature=1.0, similarities=200)
    assert max(shapes) == 200
    assert sum(shapes) == 2 * 50 * 40


# The queues.


def contents(queues: ClassQueues, k: int) -> set[float]:
    """First numbers of the vectors of a class."""
    rows = queues.rows[k * queues.length : k * queues.length + int(queues.filled[k])]
    return set(rows[:, 0].tolist())


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def test_first_in_first_out() -> None:
    queues = ClassQueues(3, length=3, width=1)
    queues.push(numbered(1, 2, 3, 4), torch.tensor([0, 2, 0, 3]))
    assert [contents(queues, k) for k in range(3)] == [{1, 3}, set(), {2}]
    queues.push(numbered(5, 6, 7), torch.tensor([0, 0, 2]))
    assert [contents(queues, k) for k in range(3)] == [{3, 5, 6}, set(), {2, 7}]
    queues.push(numbered(8), torch.tensor([0]))
    assert contents(queues, 0) == {5, 6, 8}
    assert queues.filled.tolist() == [3, 0, 2]


def test_of_more_than_fit_the_last_stay() -> None:
    queues = ClassQueues(2, length=3, width=1)
    queues.push(numbered(*range(1, 9)), torch.tensor([1, 1, 0, 1, 1, 1, 1, 2]))
    assert contents(queues, 1) == {5, 6, 7}
    queues.push(numbered(20), torch.tensor([1]))
    assert contents(queues, 1) == {6, 7, 20}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(length=st.integers(1, 5), pushes=st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5))
def test_queues_equal_lists(length: int, pushes: list[list[int]]) -> None:
    """Class 3 is none."""
    queues, lists, number = ClassQueues(3, length, 1), [[] for _ in range(4)], 0
    for classes in pushes:
        numbers = list(range(number, number + len(classes)))
        number += len(classes)
        for k, value in zip(classes, numbers, strict=True):
            lists[k].append(value)
        queues.push(torch.tensor(numbers, dtype=torch.float32).view(-1, 1), torch.tensor(classes, dtype=torch.long))
    assert [contents(queues, k) for k in range(3)] == [set(values[-length:]) for values in lists[:3]]


def test_a_sample_has_different_entries_of_each_class_and_says_which_exist() -> None:
    queues = ClassQueues(3, length=10, width=1)
    queues.push(numbered(*range(1, 15)), torch.tensor([0] * 10 + [2] * 2 + [3, 3]))
    seen = set()
    for _ in range(40):
        rows, exists = queues.sample(4)
        assert rows.shape == (12, 1)
        assert exists.view(3, 4).sum(1).tolist() == [4, 0, 2]
        first = set(rows[:4, 0].tolist())
        assert len(first) == 4
        assert first <= set(range(1, 11))
        assert set(rows[8:][exists[8:], 0].tolist()) == {11, 12}
        seen |= first
    assert seen == set(range(1, 11))


def test_a_sample_of_the_whole_length_is_everything() -> None:
    queues = ClassQueues(2, length=3, width=1)
    queues.push(numbered(1, 2, 3, 4), torch.tensor([0, 0, 1, 0]))
    rows, exists = queues.sample(3)
    assert rows[exists, 0].tolist() == [1, 2, 4, 3]


def test_queues_are_no_buffers_and_keep_their_precision() -> None:
    queues = ClassQueues(2, length=3, width=4)
    queues.push(random_features(3, 4), torch.tensor([0, 1, 1]))
    before = queues.rows.clone()
    assert not list(queues.buffers())
    for cast in (queues.double, queues.half, queues.bfloat16, queues.float):
        cast()
        assert queues.rows.dtype == torch.float16
        assert queues.filled.dtype == torch.int64
        assert torch.equal(queues.rows, before)


def test_queues_move_with_the_module() -> None:
    queues = nn.Sequential(ClassQueues(2, length=3, width=4)).to("meta")[0]
    assert {x.device.type for x in (queues.rows, queues.next, queues.filled)} == {"meta"}


def test_saved_queues_of_other_sizes_are_refused() -> None:
    state = ClassQueues(2, length=6, width=4).state_dict()
    for queues in (ClassQueues(3, 4, 4), ClassQueues(2, 5, 4), ClassQueues(2, 6, 3)):
        with pytest.raises(ValueError, match=r"saved queues of 2 classes are \(12, 4\)"):
            queues.load_state_dict(state)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    images=st.integers(1, 3),
    positions=st.integers(1, 20),
    num_classes=st.sampled_from([1, 2, 5, 1000]),
    per_class=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_positions_are_drawn_from_their_class(
    images: int, positions: int, num_classes: int, per_class: int, seed: int
) -> None:
    classes = torch.randint(num_classes + 1, (images, positions), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    index, found = draw(classes, num_classes, per_class)
    index, found = index[found < num_classes], found[found < num_classes]
    assert len(set(index.tolist())) == len(index)
    assert torch.equal(classes.flatten()[index], found)
    for image in range(images):
        for k in set(classes[image].tolist()) - {num_classes}:
            drawn = ((index // positions == image) & (found == k)).sum()
            assert drawn == min(per_class, int((classes[image] == k).sum()))


def test_every_position_of_a_class_may_be_drawn() -> None:
    classes = torch.tensor([[0, 1, 0, 0, 2]])
    torch.manual_seed(0)
    first = [draw(classes, 2, 1)[0][0].item() for _ in range(300)]
    for position in (0, 2, 3):
        assert 60 < first.count(position) < 140


# The term.


def batch_of(labels: Tensor) -> Batch:
    n = len(labels)
    return Batch(torch.zeros(n, 3, 8, 8), labels, torch.zeros(n, 4), ["x"] * n)


def outputs(x: Tensor, logits: Tensor | None = None) -> Outputs:
    return Outputs(logits=x if logits is None else logits, features={"head": x})


def features(seed: int, *shape: int, **options: Any) -> Outputs:
    return outputs(random_features(*(shape or (2, 3, 4, 4)), seed=seed, **{"dtype": torch.float32, **options}))


def term_for(student: int = 3, teacher: int = 3, num_classes: int = K, **options: Any) -> CrossImageMemory:
    torch.manual_seed(0)
    small = {"pixel_queue": 20, "region_queue": 8, "contrast_pixels": 20, "contrast_regions": 8, "anchors": None}
    term = CrossImageMemory(num_classes, **{**small, **options})
    term.bind({"head": student}, {"head": teacher})
    return term.train()


LABELS = random_labels(2, 8, 8, num_classes=K)


def filled_term(*sizes: int, steps: int = 3, **options: Any) -> CrossImageMemory:
    term = term_for(*sizes, **options)
    for step in range(steps):
        shapes = [(2, width, 4, 4) for width in (*sizes, 3, 3)[:2]]
        labels = random_labels(2, 8, 8, num_classes=K, seed=step)
        term(features(100 + step, *shapes[0]), features(200 + step, *shapes[1]), batch_of(labels))
    return term


def entries_of(term: CrossImageMemory, kind: str) -> tuple[Tensor, Tensor]:
    queues = term.queues[kind]
    assert isinstance(queues, ClassQueues)
    return queues.sample(queues.length)


def test_the_first_step_is_zero_with_a_gradient_and_fills_the_queues() -> None:
    term, student = term_for(2, 3), features(0, 2, 2, 4, 4)
    student.features["head"].requires_grad_()
    losses = []
    for _ in range(2):
        loss = term(student, features(1), batch_of(LABELS))
        loss.backward()
        losses.append(loss.item())
        gradient = student.features["head"].grad
        assert gradient is not None
        assert gradient.any() == (loss.item() > 0)
        assert all(p.grad is not None for p in term.parameters())
    assert losses[0] == 0
    assert losses[1] > 0


@pytest.mark.parametrize("weights", [(0.1, 0.1), (0.3, 0.0), (0.0, 2.0)])
def test_the_term_is_the_weighted_sum_over_pixels_and_regions(weights: tuple[float, float]) -> None:
    term = filled_term(pixel_weight=weights[0], region_weight=weights[1])
    assert set(term.queues) == {kind for kind, w in zip(("pixel", "region"), weights, strict=True) if w}
    student, teacher = features(0), features(1)
    counted = (LABELS[:, ::2, ::2] != 255).flatten().tolist()
    rows = [x.features["head"].permute(0, 2, 3, 1).reshape(-1, 3).double() for x in (student, teacher)]
    expected = sum(
        w * reference(*rows, entries_of(term, kind)[0], entries_of(term, kind)[1].tolist(), counted, 0.1)
        for kind, w in zip(("pixel", "region"), weights, strict=True)
        if w
    )
    # Entries are of length 1 up to float16.
    assert term.eval()(student, teacher, batch_of(LABELS)).item() == pytest.approx(expected, rel=1e-4)


def test_the_pixels_of_a_queue_are_pixels_of_its_class() -> None:
    """Class k is a vector along axis k: one wrong pixel would show."""
    term, labels = term_for(2, K), random_labels(2, 4, 4, num_classes=K)
    one_hot = torch.nn.functional.one_hot(labels.clamp(max=K), K + 1)[..., :K].permute(0, 3, 1, 2).float()
    one_hot[:, 0] += 7 * (labels == 255)
    scale = 1 + torch.rand(2, 1, 4, 4)
    for _ in range(3):
        term(features(0, 2, 2, 4, 4), outputs(scale * one_hot), batch_of(labels))
    for kind in ("pixel", "region"):
        rows, exists = entries_of(term, kind)
        for k, (row, there) in enumerate(zip(rows.chunk(K), exists.chunk(K), strict=True)):
            assert there.any()
            assert torch.equal(row[there].float(), torch.eye(K)[k].expand(int(there.sum()), K))


def test_pixels_of_an_image_enter_up_to_their_number() -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, 0, :2] = 1
    term = term_for(pixels_per_class=5)
    term(features(0), features(1), batch_of(labels))
    assert term.queues["pixel"].filled.tolist() == [10, 2, 0, 0]
    assert term.queues["region"].filled.tolist() == [2, 1, 0, 0]


def test_a_region_is_the_mean_of_its_unit_vectors() -> None:
    labels = torch.full((1, 1, 3), 2)
    labels[0, 0, 2] = 255
    teacher = torch.tensor([[3.0, 0.0], [0.0, 5.0], [9.0, -9.0]]).T[None, :, None, :]
    term = term_for(2, 2)
    term(features(0, 1, 2, 1, 3), outputs(teacher), batch_of(labels))
    rows, exists = entries_of(term, "region")
    assert exists.sum() == 1
    assert rows[exists][0].tolist() == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-3)


def test_nothing_enters_in_evaluation_mode() -> None:
    term = filled_term().eval()
    before = copy.deepcopy(term.state_dict())
    term(features(0), features(1), batch_of(LABELS))
    for key, value in before.items():
        if isinstance(value, dict):
            assert all(torch.equal(x, term.state_dict()[key][name]) for name, x in value.items())


def test_ignored_pixels_take_no_part() -> None:
    labels = random_labels(2, 4, 4, num_classes=K)
    valid, losses, states = (labels != 255)[:, None], [], []
    for noise in (0.0, 50.0):
        term = filled_term()
        student, teacher = (
            outputs(torch.where(valid, features(seed).features["head"], noise + seed)) for seed in (0, 1)
        )
        student.features["head"].requires_grad_()
        torch.manual_seed(1)
        loss = term(student, teacher, batch_of(labels))
        loss.backward()
        losses.append(loss.item())
        states.append(term.queues["pixel"].rows[:-1].clone())
        gradient = student.features["head"].grad
        assert gradient is not None
        assert not gradient[~valid.expand_as(gradient)].any()
    assert losses[0] == losses[1] > 0
    assert torch.equal(*states)


def test_all_ignored_is_zero_with_a_gradient() -> None:
    term, student = filled_term(), features(0)
    before = term.queues["pixel"].filled.clone()
    student.features["head"].requires_grad_()
    loss = term(student, features(1), batch_of(torch.full((2, 8, 8), 255)))
    loss.backward()
    assert loss.item() == 0
    assert student.features["head"].grad is not None
    assert not student.features["head"].grad.any()
    assert torch.equal(before, term.queues["pixel"].filled)


def test_zero_for_identical_features() -> None:
    assert filled_term()(features(0), features(0), batch_of(LABELS)).item() == 0


def test_the_order_of_images_does_not_matter() -> None:
    term, (student, teacher) = filled_term().eval(), (features(i).features["head"] for i in range(2))
    loss = term(outputs(student), outputs(teacher), batch_of(LABELS))
    turned = term(outputs(student.flip(0)), outputs(teacher.flip(0)), batch_of(LABELS.flip(0)))
    torch.testing.assert_close(turned, loss)


def test_drawn_anchors_count_and_are_right_on_average() -> None:
    student, teacher = features(0), features(1)
    whole = filled_term(anchors=None).eval()(student, teacher, batch_of(LABELS)).item()
    term = filled_term(anchors=6).eval()
    losses = [term(student, teacher, batch_of(LABELS)).item() for _ in range(300)]
    assert len({round(x, 7) for x in losses}) > 50
    assert sum(losses) / len(losses) == pytest.approx(whole, rel=0.1)


def test_anchors_are_drawn_from_pixels_that_count() -> None:
    """With two that count and room for six, the loss is that of the two."""
    labels = torch.full((2, 4, 4), 255)
    labels[0, 1, 2], labels[1, 3, 3] = 0, 1
    term, losses = filled_term().eval(), []
    for term.anchors in (None, 6, 2):
        losses.append(term(features(0), features(1), batch_of(labels)).item())
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)
    assert losses[0] > 0


def test_gradient_of_the_term_equals_finite_differences() -> None:
    term = filled_term(2, 3).eval().double()
    teacher = features(1, 2, 3, 3, 2, dtype=torch.float64)
    student = random_features(2, 2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: 100 * term(outputs(x), teacher, batch_of(LABELS)), student)


@pytest.mark.parametrize("width", [3, 5])
def test_descent_lowers_the_loss(width: int) -> None:
    term = filled_term(width, 3)
    student, teacher = features(0, 2, width, 4, 4).features["head"].requires_grad_(), features(1)
    losses = descend(student, lambda x: term.eval()(outputs(x), teacher, batch_of(LABELS)), others=term.parameters())
    assert losses[-1] < 0.3 * losses[0]


def test_gradients_reach_the_student_and_the_adapter_only() -> None:
    term, student, teacher = filled_term(2, 3), features(0, 2, 2, 4, 4), features(1)
    assert isinstance(term.adapter, Adapter)
    assert {id(p) for p in term.parameters()} == {id(p) for p in term.adapter.parameters()}
    for x in (student, teacher):
        x.features["head"].requires_grad_()
    term(student, teacher, batch_of(LABELS)).backward()
    assert teacher.features["head"].grad is None
    assert student.features["head"].grad is not None
    assert student.features["head"].grad.any()
    assert term.adapter.weight.grad is not None
    assert term.adapter.weight.grad.any()
    assert not any(x.rows.requires_grad for x in term._queues().values())


@pytest.mark.parametrize("grid", [(1, 1), (2, 5), (8, 8)])
def test_the_grids_of_student_and_teacher_may_differ(grid: tuple[int, int]) -> None:
    term, student = filled_term(), features(0, 2, 3, *grid)
    labels = torch.ones(2, 8, 8, dtype=torch.long)
    assert term(student, features(1), batch_of(labels)).item() > 0
    assert term(student, features(1, 2, 3, 1, 1), batch_of(labels)).isfinite()


@pytest.mark.parametrize("num_classes", [2, 1000])
@pytest.mark.parametrize("grid", [(1, 1), (4, 4)])
def test_few_and_many_classes_and_a_batch_of_one(num_classes: int, grid: tuple[int, int]) -> None:
    term = term_for(num_classes=num_classes, contrast_pixels=2, contrast_regions=1)
    labels = torch.randint(num_classes, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    losses = [term(features(i, 1, 3, *grid), features(9 + i, 1, 3, *grid), batch_of(labels)).item() for i in range(4)]
    assert all(math.isfinite(x) and x >= -1e-6 for x in losses)
    assert losses[0] == 0
    # One position of one class, its only entry each step: 2 pixel entries at the third.
    assert max(losses) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_term_computes_in_float32(dtype: torch.dtype) -> None:
    term, student, teacher = filled_term().eval(), features(0, dtype=dtype), features(1, dtype=dtype)
    expected = term(*(outputs(x.features["head"].double()) for x in (student, teacher)), batch_of(LABELS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = term.train()(student, teacher, batch_of(LABELS))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_logits_need_no_adapter() -> None:
    term = CrossImageMemory(K, tap="logits", contrast_pixels=8, contrast_regions=8)
    term.bind({"head": 2}, {"head": 3})
    assert not list(term.parameters())
    losses = [term(features(i, 2, K, 4, 4), features(9 + i, 2, K, 4, 4), batch_of(LABELS)).item() for i in range(2)]
    assert losses[1] > 0


def run(term: CrossImageMemory, steps: range) -> list[float]:
    losses = []
    for step in steps:
        torch.manual_seed(step)
        labels = random_labels(2, 8, 8, num_classes=K, seed=step)
        losses.append(term(features(step), features(50 + step), batch_of(labels)).item())
    return losses


def test_a_run_that_goes_on_is_the_same_to_the_bit() -> None:
    options = {"contrast_pixels": 3, "contrast_regions": 2, "anchors": 9, "pixels_per_class": 2}
    term = term_for(**options)
    run(term, range(5))
    file = io.BytesIO()
    torch.save(term.state_dict(), file)
    expected = run(term, range(5, 12))
    file.seek(0)
    other = term_for(**options)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert run(other, range(5, 12)) == expected
    assert min(expected) > 0
    for kind in ("pixel", "region"):
        ours, theirs = term.queues[kind].state_dict(), other.queues[kind].state_dict()
        assert all(torch.equal(x, theirs["_extra_state"][name]) for name, x in ours["_extra_state"].items())


@pytest.mark.parametrize("classes", [19, 150])
def test_memory_is_what_the_documentation_says(classes: int) -> None:
    term = CrossImageMemory(classes)
    term.bind({"head": 512}, {"head": 512})
    size = sum(x.rows.numel() * x.rows.element_size() for x in term._queues().values())
    assert round(size / 1e6) == {19: 29, 150: 230}[classes]


@pytest.mark.parametrize(
    "option",
    ["pixel_queue", "region_queue", "pixels_per_class", "contrast_pixels", "contrast_regions", "anchors"],
)
@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        CrossImageMemory(K, **{option: value})


@pytest.mark.parametrize("option", ["pixel_weight", "region_weight", "temperature"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bad_numbers_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        CrossImageMemory(K, **{option: value})


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match="pixel_weight, region_weight must be > 0"):
        CrossImageMemory(K, pixel_weight=0, region_weight=0)
    with pytest.raises(ValueError, match=r"contrast_regions=9.*region_queue=8"):
        CrossImageMemory(K, region_queue=8, contrast_regions=9)
    with pytest.raises(ValueError, match=r"unknown tap 'neck'.*head"):
        CrossImageMemory(K, tap="neck").bind({"head": 3}, {"head": 3})


def test_a_missing_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="CrossImageMemory needs a teacher"):
        term_for()(features(0), None, batch_of(LABELS))


# Two processes.

PARTS = (2, 1)


class Student(nn.Module):
    """A network with the term inside, as DDP sees it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Conv2d(3, 2, 1)
        # Everything enters and takes part: nothing is left to chance.
        self.term = term_for(2, 3, pixels_per_class=16, pixel_queue=40, contrast_pixels=40)

    def forward(self, image: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.term(outputs(self.network(image)), outputs(teacher), batch_of(labels))
        return loss


def steps_of(rank: int | None, model: nn.Module, count: int = 4) -> list[float]:
    losses = []
    for step in range(count):
        image, teacher = (random_features(3, 3, 4, 4, seed=10 * step + i, dtype=torch.float32) for i in range(2))
        labels = random_labels(3, 4, 4, num_classes=K, seed=step)
        if step == 2:
            labels[PARTS[0] :] = 255
        parts = [image, teacher, labels] if rank is None else [x.split(PARTS)[rank] for x in (image, teacher, labels)]
        loss = model(*parts)
        loss.backward()
        losses.append(loss.item())
    return losses


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        student = Student()
        losses = steps_of(rank, DistributedDataParallel(student))
        torch.save({"losses": losses, "state": student.state_dict()}, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_all_ranks_hold_the_queues_of_the_whole_batch(tmp_path: Path) -> None:
    ranks_of(work, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = Student()
    steps_of(None, whole)
    for kind in ("pixel", "region"):
        key = f"term.queues.{kind}._extra_state"
        first, second, alone = ranks[0]["state"][key], ranks[1]["state"][key], whole.state_dict()[key]
        assert first["filled"].sum() > 8
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert torch.equal(first["filled"], alone["filled"])
        for k, count in enumerate(first["filled"].tolist()):
            ours, expected = (
                {tuple(row) for row in x["rows"].view(K, -1, 3)[k, :count].tolist()} for x in (first, alone)
            )
            # A ring that has gone round begins elsewhere, and the order of an image's pixels is random.
            if count < first["rows"].shape[0] // K:
                assert ours == expected
    assert ranks[0]["losses"][0] == ranks[1]["losses"][0] == 0
    assert ranks[0]["losses"][1] != ranks[1]["losses"][1] > 0
