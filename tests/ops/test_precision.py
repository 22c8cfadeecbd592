"""What must not be cast with the module around it stays, and moves with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from idd_seg.losses.ops.prototype_ema import PrototypeEMA
from idd_seg.ops.precision import Widening, moves, widens


class Counter(Widening):
    """Holds numbers of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 1 / 3))
        self.steps: Tensor
        self.register_buffer("steps", torch.tensor(7))


def test_half_precision_leaves_it_to_the_bit() -> None:
    module = nn.ModuleDict({"plain": nn.Linear(2, 2), "kept": Counter()}).to(torch.bfloat16)
    assert module["plain"].weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    torch.testing.assert_close(module["kept"].weight, torch.full((3,), 1 / 3), rtol=0, atol=0)  # type: ignore[union-attr]


def test_double_precision_reaches_it() -> None:
    kept = Counter().double()
    assert kept.weight.dtype == torch.float64
    assert kept.steps.dtype == torch.int64


def test_it_moves_to_another_device() -> None:
    kept = Counter().to("meta", torch.float16)
    assert kept.weight.is_meta
    assert kept.weight.dtype == torch.float32


def test_of_a_change_the_move_is_left_alone() -> None:
    x = torch.ones(2)
    assert moves(lambda t: t.to("meta", torch.float64))(x).dtype == torch.float32
    assert moves(lambda t: t.to("meta"))(x).is_meta
    assert widens(lambda t: t.half())(x.half()).dtype == torch.float16


def test_a_memory_goes_on_moving_in_a_run_in_bfloat16() -> None:
    memory = PrototypeEMA(2, 1, 1, momentum=0.99).to(torch.bfloat16)
    classes = torch.arange(2)
    for value in [1.0, *[1.3] * 300]:
        nodes = torch.full((1, 2, 1), value)
        memory.remember(nodes, nodes, torch.ones(1, 2, dtype=torch.bool), classes)
    assert abs(float(memory.student[0, 0]) - 1.3) < 0.02
