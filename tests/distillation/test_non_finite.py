"""Losses that are not finite: refused at once, late where a GPU is behind, or left out up to a limit."""

from __future__ import annotations

import math

import pytest
import torch

from idd_seg.distillation import non_finite as module
from idd_seg.distillation.non_finite import NonFiniteGuard
from idd_seg.errors import ConfigError, NonFiniteError
from idd_seg.types import Outputs

GOOD = {"ce": torch.tensor(1.0), "kd": torch.tensor(2.0)}
BAD = {"ce": torch.tensor(1.0), "kd": torch.tensor(math.inf)}


def total(raw: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(raw.values())).sum()


def test_the_error_names_step_term_and_files() -> None:
    watched = NonFiniteGuard()
    assert watched.usable(total(GOOD), GOOD, ["a.png"], 6)
    with pytest.raises(NonFiniteError, match=r"step 7: kd = inf; batch: b\.png") as caught:
        watched.usable(total(BAD), BAD, ["b.png"], 7)
    assert "ce =" not in str(caught.value)


def test_a_sum_that_overflows_is_told() -> None:
    with pytest.raises(NonFiniteError, match="step 3: their sum"):
        NonFiniteGuard().usable(torch.tensor(math.nan), GOOD, ["a.png"], 3)


def test_steps_are_left_out_up_to_the_limit() -> None:
    watched = NonFiniteGuard(skip=2)
    for step in (1, 2):
        with pytest.warns(UserWarning, match=rf"step {step}: kd = inf.*left out \({step} of 2\)"):
            assert not watched.usable(total(BAD), BAD, ["b.png"], step)
    assert watched.usable(total(GOOD), GOOD, ["a.png"], 3)
    with pytest.raises(NonFiniteError, match="2 steps were left out"):
        watched.usable(total(BAD), BAD, ["b.png"], 4)


def outputs(value: float) -> Outputs:
    return Outputs(torch.ones(1, 2, 2, 2), {"head": torch.tensor([[[[0.0, value]]]])})


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_before_the_terms_see_them_outputs_are_looked_at(value: float) -> None:
    watched = NonFiniteGuard(skip=1)
    assert watched.sound({"student": outputs(1e30), "teacher": None}, ["a.png"], 1)
    with pytest.warns(UserWarning, match=r"outputs are not finite at step 2: teacher's head = .*left out \(1 of 1\)"):
        assert not watched.sound({"student": outputs(1), "teacher": outputs(value)}, ["b.png"], 2)
    with pytest.raises(NonFiniteError, match="1 steps were left out"):
        watched.sound({"student": outputs(value), "teacher": None}, ["b.png"], 3)


def test_a_class_that_a_teacher_does_not_know_may_be_minus_infinity() -> None:
    found = outputs(1.0)
    found.logits[:, 1] = -math.inf
    assert NonFiniteGuard(skip=1).sound({"teacher": found}, ["a.png"], 1)


def test_where_no_step_may_be_left_out_the_loss_alone_is_looked_at() -> None:
    assert NonFiniteGuard().sound({"student": outputs(math.nan)}, ["a.png"], 1)


class Late:
    """Stands for an event of a GPU that has not come that far."""

    done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Late]:
    made: list[Late] = []
    plain = module._values

    def behind(*arguments):
        found = plain(*arguments)
        made.append(Late())
        return module._Values(found.step, found.terms, found.files, found.values, made[-1])

    monkeypatch.setattr(module, "_values", behind)
    return made


def test_a_gpu_is_not_waited_for_and_what_it_says_late_is_told(events: list[Late]) -> None:
    watched = NonFiniteGuard()
    assert watched.usable(total(BAD), BAD, ["b.png"], 1)
    assert watched.usable(total(GOOD), GOOD, ["a.png"], 2)
    assert not events[0].done
    events[0].done = events[1].done = True
    with pytest.raises(NonFiniteError, match=r"step 1: kd = inf.*found at step 3"):
        watched.usable(total(GOOD), GOOD, ["a.png"], 3)


def test_before_a_checkpoint_everything_is_known(events: list[Late]) -> None:
    watched = NonFiniteGuard()
    watched.usable(total(GOOD), GOOD, ["a.png"], 1)
    watched.settle()
    assert events[0].done
    watched.usable(total(BAD), BAD, ["b.png"], 2)
    with pytest.raises(NonFiniteError, match="step 2"):
        watched.settle()


def test_a_gpu_is_never_far_behind(events: list[Late]) -> None:
    watched = NonFiniteGuard()
    for step in range(module.PENDING + 1):
        watched.usable(total(GOOD), GOOD, ["a.png"], step)
    assert [event.done for event in events] == [True] + [False] * module.PENDING


@pytest.mark.parametrize("skip", [-1, 1.5, True])
def test_other_numbers_are_refused(skip: object) -> None:
    with pytest.raises(ConfigError, match="skip_non_finite"):
        NonFiniteGuard(skip)  # type: ignore[arg-type]
