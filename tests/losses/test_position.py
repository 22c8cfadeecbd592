"""Position maps, the reader that learns them from a teacher, and the term that hands them to a student."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idd_seg.losses.ops.position_maps import position_maps
from idd_seg.losses.ops.position_probe import PositionProbe, fit_step, frozen_probe, load_probe
from idd_seg.losses.position import Position
from idd_seg.types import Batch, Outputs
from tests.losses.scenes import descend, random_features

RAMPS = ("horizontal", "vertical")
TARGETS = ("horizontal", "vertical", "gaussian", "horizontal_stripes", "vertical_stripes")
WHOLE = (0.0, 0.0, 1.0, 1.0)
FLIPPED = (1.0, 0.0, 0.0, 1.0)


def boxes(*edges: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(edges, dtype=torch.float64)


def test_pictures_of_few_cells_are_measured_and_trained_ones_are_refused() -> None:
    term = Position(warmup_steps=0)
    term.bind({"head": 4}, {"head": 4})
    small = Outputs(torch.zeros(2, 3, 2, 1), {"head": torch.rand(2, 4, 2, 1)})
    batch = Batch(
        torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long), boxes(WHOLE, WHOLE).float(), ["a", "b"]
    )
    term.eval()
    found = term.measure(small, small, batch)
    assert 0 <= found["mse_student"] <= 1
    assert found["mse_student"] == found["mse_teacher"]
    assert torch.isfinite(term(small, small, batch))
    term.train()
    with pytest.raises(ValueError, match="a feature map of 2 x 1 is too small for the position reader"):
        term.update(small, small, batch)


# The maps.


def test_ramps_by_hand() -> None:
    maps, inside = position_maps(boxes(WHOLE), (2, 4), RAMPS)
    assert maps.shape == (1, 2, 2, 4)
    assert maps[0, 0].tolist() == [[0.125, 0.375, 0.625, 0.875]] * 2
    assert maps[0, 1].tolist() == [[0.25] * 4, [0.75] * 4]
    assert inside.shape == (1, 1, 2, 4)
    assert inside.dtype == torch.bool
    assert inside.all()


def test_a_crop_by_hand() -> None:
    # From 0.5 to 1 across and 0.25 to 0.75 down: centres 0.625, 0.875 and 0.375, 0.625.
    maps, _ = position_maps(boxes((0.5, 0.25, 1.0, 0.75)), (2, 2), RAMPS)
    assert maps[0, 0, 0].tolist() == [0.625, 0.875]
    assert maps[0, 1, :, 0].tolist() == [0.375, 0.625]


def test_a_mirrored_crop_by_hand() -> None:
    maps, _ = position_maps(boxes((1.0, 0.25, 0.5, 0.75)), (2, 2), RAMPS)
    assert maps[0, 0, 0].tolist() == [0.875, 0.625]
    assert maps[0, 1, :, 0].tolist() == [0.375, 0.625]


def test_padding_is_outside() -> None:
    # Columns at -0.25, 0.25, 0.75, 1.25 and rows at 0.5, 1.5.
    _, inside = position_maps(boxes((-0.5, 0.0, 1.5, 2.0)), (2, 4), RAMPS)
    assert inside[0, 0].tolist() == [[False, True, True, False], [False] * 4]


def test_the_order_of_targets_is_the_order_of_maps() -> None:
    maps, _ = position_maps(boxes(WHOLE), (3, 5), TARGETS)
    backwards, _ = position_maps(boxes(WHOLE), (3, 5), TARGETS[::-1])
    assert torch.equal(backwards, maps.flip(1))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    rows=st.tuples(st.integers(0, 7), st.integers(1, 8)),
    columns=st.tuples(st.integers(0, 11), st.integers(1, 12)),
    mirrored=st.booleans(),
)
def test_a_crop_has_the_maps_of_its_cells_in_the_whole(
    rows: tuple[int, int], columns: tuple[int, int], mirrored: bool
) -> None:
    (top, h), (left, w) = rows, columns
    bottom, right = min(top + h, 8), min(left + w, 12)
    whole, _ = position_maps(boxes(WHOLE), (8, 12), TARGETS)
    cut = whole[..., top:bottom, left:right]
    sides = (right / 12, left / 12) if mirrored else (left / 12, right / 12)
    maps, inside = position_maps(
        boxes((sides[0], top / 8, sides[1], bottom / 8)), (bottom - top, right - left), TARGETS
    )
    torch.testing.assert_close(maps, cut.flip(-1) if mirrored else cut)
    assert inside.all()


def test_maps_are_fractions_that_vary() -> None:
    maps, _ = position_maps(boxes(WHOLE), (31, 33), TARGETS)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert (maps.amax((2, 3)) - maps.amin((2, 3))).min() > 0.5


def test_the_gaussian_sits_in_the_middle() -> None:
    gaussian = position_maps(boxes(WHOLE), (5, 7), ("gaussian",))[0][0, 0]
    assert gaussian.argmax() == 2 * 7 + 3
    assert gaussian[2, 3] == pytest.approx(1)
    torch.testing.assert_close(gaussian, gaussian.flip(0))
    torch.testing.assert_close(gaussian, gaussian.flip(1))


def test_stripes_vary_along_one_axis() -> None:
    maps, _ = position_maps(boxes(WHOLE), (16, 16), ("horizontal_stripes", "vertical_stripes"))
    lying, standing = maps[0]
    assert (lying == lying[:, :1]).all()
    assert (standing == standing[:1]).all()
    torch.testing.assert_close(lying, standing.T)


# The reader.


def placed_features(box: Tensor, size: tuple[int, int], width: int = 4, seed: int = 0) -> Tensor:
    """Features that hold the two coordinates in a mixture with noise."""
    maps, _ = position_maps(box.float(), size, RAMPS)
    noise = 0.1 * random_features(len(box), width - 2, *size, seed=seed, dtype=torch.float32)
    mixture = random_features(width, width, seed=99, dtype=torch.float32)
    return torch.einsum("dc,nchw->ndhw", mixture, torch.cat([maps, noise], dim=1))


def trained_error(features_of: Any, steps: int = 250) -> float:
    """Error of a reader on features that it did not see, against that of the constant 0.5."""
    torch.manual_seed(0)
    reader, optimizer = frozen_probe(4, RAMPS, depth=1, padding=0, lr=0.02)
    box = boxes(WHOLE).float().expand(4, 4)
    maps, inside = reader.truth(box, (8, 8))
    for step in range(steps):
        fit_step(reader, optimizer, features_of(box, step), maps, inside)
    error = (reader(features_of(box, 10_000)) - maps).square().mean()
    return float(error / (maps - 0.5).square().mean())


def test_the_reader_learns_position_from_features_that_hold_it() -> None:
    assert trained_error(lambda box, seed: placed_features(box, (8, 8), seed=seed)) < 0.2


def test_the_reader_learns_nothing_from_features_without_position() -> None:
    """Zero padding would let it: see the next test."""
    error = trained_error(lambda box, seed: random_features(4, 4, 8, 8, seed=seed, dtype=torch.float32), steps=100)
    assert error > 0.9


@pytest.mark.parametrize("depth", [1, 2])
def test_padding_alone_tells_the_border(depth: int) -> None:
    torch.manual_seed(0)
    constant = torch.ones(1, 4, 9, 9)
    plain = PositionProbe(4, RAMPS, depth=depth, padding=0).eval()(constant)
    padded = PositionProbe(4, RAMPS, depth=depth, padding=1).eval()(constant)
    assert plain.shape == (1, 2, 9 - 2 * depth, 9 - 2 * depth)
    assert padded.shape == (1, 2, 9, 9)
    assert (plain.amax((2, 3)) - plain.amin((2, 3))).max() < 1e-6
    assert (padded.amax((2, 3)) - padded.amin((2, 3))).max() > 1e-3


def test_the_truth_is_cut_to_the_reading() -> None:
    reader = PositionProbe(4, RAMPS, depth=2)
    maps, inside = reader.truth(boxes((-0.5, 0.0, 1.0, 1.0)), (8, 9))
    whole, whole_inside = position_maps(boxes((-0.5, 0.0, 1.0, 1.0)), (8, 9), RAMPS)
    assert torch.equal(maps, whole[..., 2:-2, 2:-2])
    assert torch.equal(inside, whole_inside[..., 2:-2, 2:-2])


def test_a_step_returns_the_error_over_valid_cells_before_it() -> None:
    torch.manual_seed(0)
    reader, optimizer = frozen_probe(3, ("vertical",), depth=1, padding=1, lr=0.1)
    features = random_features(2, 3, 4, 4, dtype=torch.float32)
    maps, valid = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4) > 0.4
    reading = reader.train()(features).detach()
    expected = [(reading[cell] - maps[cell]).item() ** 2 for cell in zip(*valid.nonzero(as_tuple=True), strict=True)]
    error = fit_step(reader, optimizer, features, maps, valid)
    assert error.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert not error.requires_grad


def test_cells_of_padding_teach_the_reader_nothing() -> None:
    valid = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    maps = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    weights = []
    for truth in (maps, torch.where(valid, maps, 1000.0), torch.where(valid, maps + 0.1, maps)):
        torch.manual_seed(0)
        reader, optimizer = frozen_probe(3, ("vertical",), depth=1, padding=1, lr=0.1)
        for _ in range(3):
            fit_step(reader, optimizer, random_features(2, 3, 4, 4, dtype=torch.float32), truth, valid)
        weights.append(reader.layers[0].weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_step_leaves_no_gradient_behind() -> None:
    reader, optimizer = frozen_probe(3, RAMPS, depth=1, padding=1, lr=0.1)
    features = random_features(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    fit_step(reader, optimizer, features, torch.rand(2, 2, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool))
    assert features.grad is None
    assert not reader.training
    for parameter in reader.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


@pytest.mark.parametrize(("option", "value"), [("depth", 0), ("padding", 2)])
def test_bad_options_of_the_reader_are_refused(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option}.*{value}"):
        PositionProbe(4, RAMPS, **{option: value})


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
def test_a_map_too_small_for_the_reader_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}"):
        PositionProbe(4, RAMPS)(torch.ones(1, 4, *size))


# The term.


def outputs(features: Tensor, **others: Tensor) -> Outputs:
    return Outputs(logits=features, features={"head": features, **others})


def batch_of(box: Tensor) -> Batch:
    n = len(box)
    return Batch(torch.zeros(n, 3, 8, 8), torch.zeros(n, 8, 8, dtype=torch.long), box.float(), ["x"] * n)


def term_for(student_width: int = 4, teacher_width: int = 4, seed: int = 0, **options: Any) -> Position:
    torch.manual_seed(seed)
    term = Position(**{"warmup_steps": 0, **options})
    term.bind({"head": student_width}, {"head": teacher_width})
    return term.train()


BATCH = batch_of(boxes(WHOLE, FLIPPED))


def teacher_outputs(seed: int = 0, width: int = 4) -> Outputs:
    return outputs(placed_features(BATCH.box, (8, 8), width, seed))


def student_outputs(seed: int = 1, width: int = 4) -> Outputs:
    return outputs(random_features(2, width, 8, 8, seed=seed, dtype=torch.float32).requires_grad_())


def reader_state(term: Position) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in term.reader.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_the_mean_squared_difference_of_readings_over_the_photograph() -> None:
    term = term_for()
    # The left third of the second picture is padding.
    batch = batch_of(boxes(WHOLE, (-0.5, 0.0, 1.0, 1.0)))
    student, teacher = student_outputs(), teacher_outputs()
    term.update(student, teacher, batch)
    loss = term(student, teacher, batch)

    ours, theirs = (term.reader(side.features["head"]).detach() for side in (student, teacher))
    _, inside = position_maps(batch.box, (8, 8), RAMPS)
    squares = [
        (ours[n, t, i, j] - theirs[n, t, i, j]).item() ** 2
        for n in range(2)
        for t in range(2)
        for i in range(6)
        for j in range(6)
        if inside[n, 0, i + 1, j + 1]
    ]
    # Rows and columns 1 to 6 are read; in the second picture columns at -0.22 and -0.03 are padding.
    assert len(squares) == 2 * (36 + 24)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_zero_for_identical_features_however_wrong_the_reading() -> None:
    """The student is pulled to the teacher's reading, not to the true coordinates."""
    term, teacher = term_for(), teacher_outputs()
    term.update(teacher, teacher, BATCH)
    student = outputs(teacher.features["head"].clone().requires_grad_())
    loss = term(student, teacher, BATCH)
    loss.backward()
    assert loss.item() == 0
    assert student.features["head"].grad is not None
    assert not student.features["head"].grad.any()
    assert term.measure(student, teacher, BATCH)["mse_student"] > 0.01


def test_gradient_equals_finite_differences() -> None:
    term = term_for(2, 3).double()
    teacher = outputs(random_features(1, 3, 4, 4))
    batch = batch_of(boxes((-0.3, 0.0, 1.0, 1.0)))
    term.update(teacher, teacher, batch)
    student = random_features(1, 2, 4, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(outputs(x), teacher, batch), student)


@pytest.mark.parametrize("width", [4, 3])
def test_descent_lowers_the_loss(width: int) -> None:
    term, teacher = term_for(width, 4), teacher_outputs()
    for _ in range(30):
        term.update(teacher, teacher, BATCH)
    # Small features: large ones of another network saturate the sigmoid.
    student = (0.1 * student_outputs(width=width).features["head"].detach()).requires_grad_()
    losses = descend(student, lambda x: term(outputs(x), teacher, BATCH), steps=60, others=term.adapters.parameters())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("width", [4, 3])
def test_the_pass_of_the_student_neither_changes_nor_trains_the_reader(width: int) -> None:
    term, student, teacher = term_for(width, 4), student_outputs(width=width), teacher_outputs()
    term.update(student, teacher, BATCH)
    before = reader_state(term)
    term.train()
    term(student, teacher, BATCH).backward()
    assert same(before, reader_state(term))
    assert all(parameter.grad is None for parameter in term.reader.parameters())
    assert not term.reader.training
    assert student.features["head"].grad is not None
    assert student.features["head"].grad.any()


def test_no_parameter_of_the_reader_is_for_the_optimizer_of_the_student() -> None:
    assert not [p for p in term_for(4, 4).parameters() if p.requires_grad]
    adapted = term_for(3, 4)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapted.adapters.parameters()}


def test_adapters_get_gradients_and_fit_widths() -> None:
    term, student, teacher = term_for(3, 4), student_outputs(width=3), teacher_outputs()
    term.update(student, teacher, BATCH)
    term(student, teacher, BATCH).backward()
    (adapter,) = term.adapters.values()
    assert adapter.weight.shape == (4, 3, 1, 1)
    assert adapter.weight.grad is not None
    assert adapter.weight.grad.any()


def test_adapters_are_left_alone_by_the_steps_of_the_reader() -> None:
    term, student, teacher = term_for(3, 4), student_outputs(width=3), teacher_outputs()
    before = [p.clone() for p in term.adapters.parameters()]
    term.update(student, teacher, BATCH)
    assert all(torch.equal(a, b) for a, b in zip(before, term.adapters.parameters(), strict=True))
    assert all(p.grad is None for p in term.adapters.parameters())
    assert student.features["head"].grad is None


def test_the_teacher_gets_no_gradient() -> None:
    term, student, teacher = term_for(), student_outputs(), teacher_outputs()
    teacher.features["head"].requires_grad_()
    term.update(student, teacher, BATCH)
    term(student, teacher, BATCH).backward()
    assert teacher.features["head"].grad is None


def test_the_reader_does_not_learn_from_the_student() -> None:
    states = []
    for seed in (1, 2):
        term = term_for()
        term.update(student_outputs(seed=seed), teacher_outputs(), BATCH)
        states.append(reader_state(term))
    assert same(*states)


def test_zero_with_a_gradient_while_the_warmup_lasts() -> None:
    term, teacher = term_for(warmup_steps=2), teacher_outputs()
    losses = []
    for _ in range(4):
        student = student_outputs()
        term.update(student, teacher, BATCH)
        loss = term(student, teacher, BATCH)
        loss.backward()
        losses.append(loss.item())
        assert student.features["head"].grad is not None
        assert student.features["head"].grad.any() == (loss.item() > 0)
    assert losses[:2] == [0, 0]
    assert min(losses[2:]) > 0


def test_the_reader_learns_during_the_warmup() -> None:
    term, teacher = term_for(warmup_steps=1000, reader_lr=0.02), teacher_outputs()
    before = term.measure(teacher, teacher, BATCH)["mse_teacher"]
    for step in range(150):
        term.update(student_outputs(), teacher_outputs(seed=step), BATCH)
    assert term.measure(teacher, teacher, BATCH)["mse_teacher"] < 0.3 * before


def test_place_in_the_photograph_can_be_read_from_augmented_pictures() -> None:
    """Features that know the photograph are read well with `image`, and not with coordinates of the crop."""
    box = boxes(WHOLE, FLIPPED, (0.5, 0.0, 1.0, 0.5), (0.6, 0.4, 0.1, 0.9))
    errors = {}
    for coordinates in ("image", "crop"):
        term = term_for(coordinates=coordinates, reader_lr=0.02)
        for step in range(200):
            features = outputs(placed_features(box, (8, 8), seed=step))
            term.update(features, features, batch_of(box))
        features = outputs(placed_features(box, (8, 8), seed=9999))
        errors[coordinates] = float(term.measure(features, features, batch_of(box))["mse_teacher"])
    assert errors["image"] < 0.01
    assert errors["crop"] > 3 * errors["image"]


def test_crop_coordinates_take_no_notice_of_the_box() -> None:
    teacher, states = teacher_outputs(), []
    for box in (boxes(WHOLE, FLIPPED), boxes((0.5, 0.0, 1.0, 0.5), (-3.0, 0.0, -2.0, 1.0))):
        term = term_for(coordinates="crop")
        term.update(teacher, teacher, batch_of(box))
        states.append(reader_state(term))
    assert same(*states)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_steps_of_the_reader_per_training_step(steps: int) -> None:
    term, teacher = term_for(reader_steps=steps), teacher_outputs()
    before = reader_state(term)
    term.update(teacher, teacher, BATCH)
    assert same(before, reader_state(term)) == (steps == 0)
    assert int(term.reader.layers[1].num_batches_tracked) == steps


def test_a_photograph_all_padding_is_zero_with_a_gradient() -> None:
    term, student, teacher = term_for(), student_outputs(), teacher_outputs()
    batch = batch_of(boxes((1.5, 0.0, 2.5, 1.0), (0.0, -2.0, 1.0, -1.0)))
    term.update(student, teacher, batch)
    loss = term(student, teacher, batch)
    loss.backward()
    assert loss.item() == 0
    assert student.features["head"].grad is not None
    assert not student.features["head"].grad.any()
    assert all(value.isfinite().all() for value in reader_state(term).values())


@pytest.mark.parametrize("grid", [(4, 4), (16, 16), (5, 11)])
def test_the_grids_of_student_and_teacher_may_differ(grid: tuple[int, int]) -> None:
    term, teacher = term_for(), teacher_outputs()
    student = outputs(random_features(2, 4, *grid, dtype=torch.float32).requires_grad_())
    term.update(student, teacher, BATCH)
    loss = term(student, teacher, BATCH)
    loss.backward()
    assert loss.item() > 0
    assert student.features["head"].grad is not None
    assert student.features["head"].grad.any()


def test_several_taps_are_read_on_the_grid_of_the_first() -> None:
    torch.manual_seed(0)
    term = Position(taps=("head", "stage3"), warmup_steps=0)
    term.bind({"head": 4, "stage3": 2}, {"head": 4, "stage3": 3})
    assert list(term.adapters) == ["stage3"]
    term.train()
    stage = random_features(2, 2, 4, 4, dtype=torch.float32).requires_grad_()
    student = outputs(random_features(2, 4, 8, 8, dtype=torch.float32).requires_grad_(), stage3=stage)
    teacher = outputs(teacher_outputs().features["head"], stage3=random_features(2, 3, 4, 4, dtype=torch.float32))
    term.update(student, teacher, BATCH)
    term(student, teacher, BATCH).backward()
    assert stage.grad is not None
    assert stage.grad.any()


def test_a_batch_of_one() -> None:
    term, batch = term_for(), batch_of(boxes(WHOLE))
    teacher = outputs(placed_features(batch.box, (8, 8)))
    student = outputs(random_features(1, 4, 8, 8, dtype=torch.float32).requires_grad_())
    term.update(student, teacher, batch)
    assert term(student, teacher, batch).item() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    values = []
    for exact in (False, True):
        term = term_for(3, 4)
        student, teacher = student_outputs(width=3).features["head"], teacher_outputs().features["head"]
        student, teacher = student.to(dtype), teacher.to(dtype)
        if exact:
            student, teacher = student.float(), teacher.float()
        term.update(outputs(student), outputs(teacher), BATCH)
        loss = term(outputs(student), outputs(teacher), BATCH)
        assert loss.dtype == torch.float32
        values.append(loss.item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_autocast_changes_nothing() -> None:
    values = []
    for enabled in (True, False):
        term, student, teacher = term_for(3, 4), student_outputs(width=3), teacher_outputs()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            term.update(student, teacher, BATCH)
            values.append(term(student, teacher, BATCH).item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


# What a checkpoint and a later run hold.


def trained(term: Position, seeds: range) -> Position:
    for seed in seeds:
        term.update(student_outputs(), teacher_outputs(seed=seed), BATCH)
    return term


def test_the_optimizer_of_the_reader_survives_a_save_and_a_load(tmp_path: Path) -> None:
    first = trained(term_for(3, 4, warmup_steps=5), range(4))
    torch.save(first.state_dict(), tmp_path / "term.pt")
    second = term_for(3, 4, seed=7, warmup_steps=5)
    second.load_state_dict(torch.load(tmp_path / "term.pt", weights_only=True))
    forgetful = term_for(3, 4, seed=7, warmup_steps=5)
    forgetful.load_state_dict({**first.state_dict(), "_extra_state": {}})

    for term in (first, second, forgetful):
        trained(term, range(4, 6))
    assert same(reader_state(first), reader_state(second))
    assert not same(reader_state(first), reader_state(forgetful))
    student, teacher = student_outputs(width=3), teacher_outputs()
    assert first(student, teacher, BATCH).item() == second(student, teacher, BATCH).item() > 0


def test_the_warmup_survives_a_save_and_a_load() -> None:
    first = trained(term_for(warmup_steps=3), range(3))
    second = term_for(warmup_steps=3)
    second.load_state_dict(first.state_dict())
    student, teacher = student_outputs(), teacher_outputs()
    assert second(student, teacher, BATCH).item() == 0
    trained(second, range(1))
    assert second(student, teacher, BATCH).item() > 0


def test_a_kept_reader_serves_a_later_run(tmp_path: Path) -> None:
    first = trained(term_for(), range(4))
    first.keep(tmp_path)
    (kept,) = tmp_path.iterdir()
    second = term_for(seed=7, reader_weights=str(kept), reader_steps=0)
    assert same(reader_state(first), reader_state(second))


def test_a_file_that_is_no_reader_is_refused(tmp_path: Path) -> None:
    reader = PositionProbe(4, RAMPS)
    path = tmp_path / "reader.safetensors"
    with pytest.raises(ValueError, match=r"reader\.safetensors"):
        load_probe(reader, str(path))
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"reader\.safetensors"):
        load_probe(reader, str(path))
    term_for(5, 5).keep(tmp_path)
    with pytest.raises(ValueError, match=r"position_reader.*layers\.0\.weight.*\[2, 4, 3, 3\]"):
        load_probe(reader, str(tmp_path / "position_reader.safetensors"))


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("targets", ("vertical", "horizontal"), "targets=horizontal,vertical, here targets=vertical,horizontal"),
        ("coordinates", "crop", "coordinates=image, here coordinates=crop"),
        ("padding", 1, "padding=0, here padding=1"),
    ],
)
def test_a_reader_of_something_else_is_refused(tmp_path: Path, option: str, value: Any, told: str) -> None:
    """Of the same shapes: it would load, and be wrong."""
    term_for().keep(tmp_path)
    with pytest.raises(ValueError, match=told):
        term_for(reader_weights=str(tmp_path / "position_reader.safetensors"), **{option: value})


def test_an_optimizer_that_was_restored_follows_its_reader() -> None:
    """Lightning restores the state before it casts or moves the module."""
    kept = trained(term_for(), range(2)).state_dict()
    term = term_for()
    term.load_state_dict(kept)
    term.double()
    before = reader_state(term)
    trained(term, range(1))
    assert not same(before, reader_state(term))


def test_a_run_in_bfloat16_computes_in_float32() -> None:
    term = term_for(student_width=3).to(torch.bfloat16)
    student = outputs(random_features(2, 3, 8, 8, dtype=torch.bfloat16).requires_grad_())
    teacher = outputs(teacher_outputs().features["head"].bfloat16())
    term.update(student, teacher, BATCH)
    loss = term(student, teacher, BATCH)
    assert loss.dtype == torch.float32
    assert all(x.dtype == torch.float32 for x in term.reader.parameters())


# What is refused.


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("targets", ("horizontal", "diagonal"), TARGETS), ("coordinates", "diagonal", ("image", "crop"))],
)
def test_unknown_options_are_refused(option: str, value: Any, allowed: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="diagonal") as error:
        Position(**{option: value})
    assert all(name in str(error.value) for name in allowed)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_bad_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight.*{weight}"):
        Position(weight=weight)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("reader_lr", 0.0),
        ("reader_lr", -1.0),
        ("reader_steps", -1),
        ("warmup_steps", -1),
        ("taps", ()),
        ("targets", ()),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option.rstrip("s")):
        Position(**{option: value})


@pytest.mark.parametrize(("student", "teacher"), [({"stage4": 4}, {"head": 4}), ({"head": 4}, {"stage4": 4})])
def test_an_unknown_tap_is_refused(student: dict[str, int], teacher: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"head.*stage4"):
        Position(taps=("head",)).bind(student, teacher)
