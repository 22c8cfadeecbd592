"""Warnings of a run that goes wrong without ending: a term that explodes, a teacher worse than its student."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from idd_seg.callbacks.loss_spike import LossSpike
from idd_seg.callbacks.weak_teacher import WeakTeacher
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.kd import PixelWise
from idd_seg.losses.term import Term
from idd_seg.types import Batch, Outputs
from tests.test_training import distiller, network, shapes, trainer


class Jumping(Term):
    """Is 1, and so many times as much at each step from the thirteenth on."""

    needs_teacher = False

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times, self.calls = times, 0

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        self.calls += 1
        return 1.0 + 0.0 * student.logits.sum() + (self.times - 1 if self.calls > 12 else 0)


def told(folder: Path, module: Any, callback: Any, steps: int, **options: Any) -> list[str]:
    run = trainer(folder, steps, callbacks=[callback], log_every_n_steps=1, **options)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run.fit(module, datamodule=shapes())
    return [str(one.message) for one in found if "said once" in str(one.message)]


@pytest.mark.parametrize(("times", "number"), [(500.0, 1), (50.0, 0)])
def test_a_term_that_explodes_is_named_once(tmp_path: Path, times: float, number: int) -> None:
    module = distiller({"ce": CrossEntropy(), "jump": Jumping(times)}, None)
    found = told(tmp_path, module, LossSpike(), 16)
    assert len(found) == number
    for text in found:
        assert "loss.jump explodes: 500 at step 13, 500 times its median" in text
        assert text.count("shapes:0/train/") == 4


@pytest.mark.parametrize(("rate", "number"), [(0.01, 0), (1e3, 1)])
def test_a_training_that_is_thrown_off_is_told_once(tmp_path: Path, rate: float, number: int) -> None:
    module = distiller({"ce": CrossEntropy()}, None, lr=rate)
    found = told(tmp_path, module, LossSpike(), 6)
    assert len(found) == number
    for text in found:
        # ln 11 of the head, and 0.4 times as much of the auxiliary one.
        assert "times that of a guess (3.36)" in text
        assert "optimizer=adamw" in text
        assert "trainer.gradient_clip_val=5" in text


@pytest.mark.parametrize(
    "values", [{"factor": 1}, {"above_guess": 1}, {"factor": True}, {"window": 3}, {"window": 20.5}]
)
def test_odd_limits_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"callbacks\.loss_spike\.{next(iter(values))}"):
        LossSpike(**values)


def judged(folder: Path, good: str) -> list[str]:
    """Validate a student and a teacher, of which one gives the right classes."""
    module, data = distiller({"kd": PixelWise()}, network(8)), shapes()
    answers = {"student": 3, "teacher": 3, good: None}

    def answer(name: str) -> Any:
        def hook(network: Any, inputs: Any, outputs: Outputs) -> Outputs:
            label = data.dataset("val")[0, 0].label.long()
            truth = torch.nn.functional.one_hot(label.clamp(max=10), 11).permute(2, 0, 1)[None].float()
            logits = torch.zeros_like(truth)
            logits[:, 3] = 1
            given = truth if answers[name] is None else logits
            return Outputs(given.expand(len(outputs.logits), -1, -1, -1), outputs.features)

        return hook

    module.student.register_forward_hook(answer("student"))
    module.teacher.register_forward_hook(answer("teacher"))
    data.lengths["val"] = 1
    run = trainer(folder, callbacks=[WeakTeacher()])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run.validate(module, datamodule=data, verbose=False)
        run.validate(module, datamodule=data, verbose=False)
    return [str(one.message) for one in found if "said once" in str(one.message)]


def test_a_teacher_worse_than_its_student_is_told_once(tmp_path: Path) -> None:
    (text,) = judged(tmp_path, "student")
    assert "the teacher is worse than its student at step 0" in text
    assert "against 100.00" in text


def test_a_better_teacher_is_not_told(tmp_path: Path) -> None:
    assert judged(tmp_path, "teacher") == []
