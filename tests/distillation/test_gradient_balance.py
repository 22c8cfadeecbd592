"""Balancing by gradient norms: values by hand, what is left alone, what is saved, and whole runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from idd_seg.config.instantiate import make
from idd_seg.distillation.gradient_balance import GradientBalance
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.kd import PixelWise
from idd_seg.losses.schedule import WeightSchedule
from tests.config.test_composition import compose
from tests.ranks import ranks_of
from tests.test_weights_over_time import distiller, fit


def bound(*names: str, **options: float) -> GradientBalance:
    balance = GradientBalance(**{"every": 1, **options})  # type: ignore[arg-type]
    balance.bind(names)
    return balance


def slopes(x: Tensor, **values: float) -> dict[str, Tensor]:
    """Losses whose gradients have these norms."""
    return {name: value * x.sum() / len(x) ** 0.5 for name, value in values.items()}


def point(size: int = 4) -> nn.Parameter:
    return nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))


def test_norm_and_factor_by_hand() -> None:
    balance, x, y = bound("ce", "idd"), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    # Gradients (3, 0) and (4) of ce: norm 5. Of idd (0, 2) and none: norm 2.
    balance.measure({"ce": 3 * x[0] + 4 * y[0], "idd": 2 * x[1]}, [x, y], 0)
    assert balance.norm("ce").item() == pytest.approx(5)
    assert balance.norm("idd").item() == pytest.approx(2)
    assert balance.factor("ce").item() == 1
    assert balance.factor("idd").item() == pytest.approx(2.5)


def test_balanced_gradients_are_as_their_weights_say() -> None:
    balance, x = bound("ce", "kd", "idd"), point()
    losses = {"ce": x.square().sum(), "kd": 1e3 * x.sin().sum(), "idd": 1e-3 * x.exp().sum()}
    balance.measure(losses, [x], 0)
    norms = {
        name: torch.autograd.grad(weight * balance.factor(name) * losses[name], x)[0].norm().item()
        for name, weight in (("ce", 1.0), ("kd", 0.5), ("idd", 3.0))
    }
    assert norms["kd"] == pytest.approx(0.5 * norms["ce"], rel=1e-5)
    assert norms["idd"] == pytest.approx(3 * norms["ce"], rel=1e-5)


def test_averages_move_by_momentum_and_start_at_the_first_norm() -> None:
    balance, x = bound("ce", "kd", momentum=0.75), point()
    balance.measure(slopes(x, ce=8, kd=2), [x], 0)
    assert balance.norm("ce").item() == pytest.approx(8)
    balance.measure(slopes(x, ce=4, kd=2), [x], 1)
    assert balance.norm("ce").item() == pytest.approx(0.75 * 8 + 0.25 * 4)
    assert balance.factor("kd").item() == pytest.approx(7 / 2)


def test_only_every_so_many_steps_are_measured() -> None:
    balance, x = bound("ce", "kd", every=3, momentum=0.0), point()
    seen = []
    for step in range(7):
        balance.measure(slopes(x, ce=step + 1, kd=1), [x], step)
        seen.append(round(balance.norm("ce").item(), 4))
    assert seen == [1, 1, 1, 4, 4, 4, 7]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_norm_that_is_zero_or_not_finite_leaves_the_factor(value: float) -> None:
    balance, x = bound("ce", "kd"), point()
    balance.measure(slopes(x, ce=4, kd=value), [x], 0)
    assert balance.factor("kd").item() == 1
    balance.measure(slopes(x, ce=4, kd=2), [x], 1)
    assert balance.factor("kd").item() == pytest.approx(2)
    balance.measure(slopes(x, ce=4, kd=value), [x], 2)
    assert balance.factor("kd").item() == pytest.approx(2)
    balance.measure(slopes(x, ce=value, kd=2), [x], 3)
    assert balance.factor("kd").item() == pytest.approx(2)


def test_a_term_that_is_left_out_or_reaches_no_parameter_keeps_its_factor() -> None:
    balance, x = bound("ce", "kd"), point()
    balance.measure(slopes(x, ce=4, kd=2), [x], 0)
    balance.measure(slopes(x, ce=4), [x], 1)
    assert balance.factor("kd").item() == pytest.approx(2)
    elsewhere = point()
    balance.measure({"ce": slopes(x, ce=4)["ce"], "kd": elsewhere.sum()}, [x], 2)
    balance.measure({"ce": slopes(x, ce=4)["ce"], "kd": torch.tensor(3.0)}, [x], 3)
    assert balance.factor("kd").item() == pytest.approx(2)


@pytest.mark.parametrize(("norm", "expected"), [(1e-9, 50.0), (1e9, 0.1)])
def test_the_factor_is_bounded(norm: float, expected: float) -> None:
    balance, x = bound("ce", "kd", low=0.1, high=50.0), point()
    balance.measure(slopes(x, ce=1, kd=norm), [x], 0)
    assert balance.factor("kd").item() == pytest.approx(expected)


def test_measuring_leaves_gradients_and_graphs_alone() -> None:
    balance, x = bound("ce", "kd"), point()
    losses = {"ce": x.square().sum(), "kd": x.exp().sum()}
    balance.measure(losses, [x], 0)
    assert x.grad is None
    sum(losses.values()).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(x.grad, (2 * x + x.exp()).detach())


def test_the_averages_are_saved() -> None:
    balance, x = bound("ce", "kd"), point()
    balance.measure(slopes(x, ce=3, kd=2), [x], 0)
    other = bound("ce", "kd")
    other.load_state_dict(balance.state_dict())
    assert other.factor("kd").item() == balance.factor("kd").item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "balance.every must be a whole number >= 1, got '0'"),
        ({"every": 2.5}, "got '2.5'"),
        ({"momentum": 1.0}, "balance.momentum must be in"),
        ({"low": 0.0}, "0 < low <= high, got 0.0"),
        ({"low": 2.0, "high": 1.0}, "got 2.0 and 1.0"),
        ({"high": float("inf")}, "got 0.0001 and inf"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GradientBalance(**options)  # type: ignore[arg-type]


def test_a_reference_that_is_no_term_is_named() -> None:
    with pytest.raises(ConfigError, match=r"balance\.reference=ce is no term of this run; they are kd, idd"):
        bound("kd", "idd")


# The configuration, and whole runs.


def test_there_is_none_unless_it_is_chosen() -> None:
    assert compose("train").balance is None
    found = make(compose("train", "balance=gradient", "balance.every=7").balance, "balance")
    assert isinstance(found, GradientBalance)
    assert (found.every, found.reference) == (7, "ce")


def test_a_run_logs_and_applies_the_factors(tmp_path: Path) -> None:
    terms = {"ce": CrossEntropy(), "kd": PixelWise(weight=0.5, schedule=WeightSchedule(stop=5))}
    rows = fit(distiller(terms, GradientBalance(every=2, momentum=0.5)), tmp_path)
    for step, row in enumerate(rows):
        norms = [float(row[f"train/{name}_gradient"]) for name in ("ce", "kd")]
        assert min(norms) > 0
        assert float(row["train/ce_factor"]) == 1
        assert float(row["train/kd_factor"]) == pytest.approx(norms[0] / norms[1], rel=1e-5)
        if step < 5:
            expected = 0.5 * float(row["train/kd_factor"]) * float(row["train/kd"])
            assert float(row["train/kd_weighted"]) == pytest.approx(expected, rel=1e-5)
    moved = [float(row["train/ce_gradient"]) for row in rows]
    assert moved[0] == moved[1] != moved[2] == moved[3] != moved[4]


def test_the_scale_of_a_balanced_term_does_not_matter(tmp_path: Path) -> None:
    """A term that is 64 times as large trains the student to the same weights."""

    class Larger(PixelWise):
        def forward(self, *given: object) -> Tensor:
            return 64 * super().forward(*given)  # type: ignore[arg-type]

    runs = []
    for kind in (PixelWise, Larger):
        module = distiller({"ce": CrossEntropy(), "kd": kind()}, GradientBalance(every=1))
        fit(module, tmp_path / kind.__name__, steps=3)
        runs.append(module)
    for ours, theirs in zip(*(run.student.parameters() for run in runs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_averages_lie_in_the_checkpoints_state(tmp_path: Path) -> None:
    module = distiller({"ce": CrossEntropy(), "kd": PixelWise()}, GradientBalance(every=1))
    fit(module, tmp_path, steps=2)
    state = {key: value for key, value in module.state_dict().items() if key.startswith("balance.")}
    assert set(state) == {"balance.norms.ce", "balance.norms.kd"}
    assert all(value > 0 for value in state.values())


def work(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        balance, x = bound("ce", "kd"), point()
        balance.measure(slopes(x, ce=2 + 4 * rank, kd=1 + rank), [x], 0)
        torch.save(balance.state_dict(), Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_norms_are_averaged_over_processes(tmp_path: Path) -> None:
    ranks_of(work, str(tmp_path))
    for rank in range(2):
        state = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert state["norms.ce"].item() == pytest.approx(4)
        assert state["norms.kd"].item() == pytest.approx(1.5)
