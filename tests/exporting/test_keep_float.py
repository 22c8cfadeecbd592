"""Layers stay in float, the most harmful first, until 8 bits lose no more than was said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from idd_seg.errors import UserError
from idd_seg.exporting.keep_float import quantise_within
from idd_seg.exporting.parity import Runner
from idd_seg.metrics.confusion import Scores, scores

# What each layer loses in 8 bits: points of mIoU, and a difference of the logits of the same order.
LOSSES = {"a": 0.1, "b": 2.0, "c": 0.0, "d": 5.0, "e": 0.2, "f": 0.4, "g": 0.0, "h": 0.0}
PICTURES = [torch.zeros(1, 3, 4, 4)] * 6


class Form:
    """Stands for a file: its logits are off by what its layers in 8 bits lose."""

    def __init__(self, lost: float) -> None:
        self.lost = lost

    def __call__(self, picture: Tensor) -> Tensor:
        return picture + self.lost


def score(points: float) -> Scores:
    right = round(100_000 * points / 100)
    # Two classes of equal size; the share of right pixels r gives IoU = r / (2 - r), so that it rises with r.
    matrix = torch.tensor([[right, 100_000 - right], [100_000 - right, right]])
    return scores(matrix)


def judged(form: Runner) -> Scores:
    assert isinstance(form, Form)
    return score(90 - form.lost)


def run(max_drop: float | None) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the layers in float, and of each call how many stayed in float and how many pictures it had."""
    calls = []

    def quantise(in_float: Sequence[str], pictures: Sequence[Tensor]) -> Form:
        calls.append((len(in_float), len(pictures)))
        return Form(sum(loss for name, loss in LOSSES.items() if name not in in_float))

    kept = quantise_within("x", quantise, list(LOSSES), PICTURES, judged, score(90), Form(0), max_drop)
    assert isinstance(kept.runner, Form)
    assert kept.after == judged(kept.runner)
    return kept.in_float, calls


@pytest.mark.parametrize("max_drop", [None, 20])
def test_all_layers_where_that_is_good_enough(max_drop: float | None) -> None:
    assert run(max_drop) == ([], [(0, 6)])


def test_the_most_harmful_ones_stay_in_float() -> None:
    in_float, calls = run(2.5)
    assert in_float == ["d", "b"]
    assert calls == [(0, 6), *[(7, 4)] * 8, (1, 6), (2, 6)]


def test_it_doubles_up_to_half_of_them() -> None:
    assert run(0.5)[0] == ["d", "b", "f", "e"]


def test_more_than_half_is_refused() -> None:
    with pytest.raises(UserError, match=r"x was not written: it loses .* and calibration.max_drop is 0.01"):
        run(0.01)
