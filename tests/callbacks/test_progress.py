"""What is told of a run's speed and of the time that is left."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idd_seg.callbacks import progress, throughput
from idd_seg.callbacks.progress import ProgressLines
from idd_seg.callbacks.throughput import Throughput
from idd_seg.losses.ce import CrossEntropy
from tests.test_training import distiller, shapes, trainer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still."""
    made = SimpleNamespace(now=0.0)
    for module in (progress, throughput):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now, perf_counter=lambda: made.now))
    return made


@pytest.mark.parametrize(("first", "steps", "seconds", "left"), [(0, 100, 10.0, 90), (900, 10, 10.0, 90)])
def test_the_time_left_is_that_of_the_steps_since_the_start(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str], first: int, steps: int, seconds: float, left: int
) -> None:
    run: Any = SimpleNamespace(
        global_step=first, max_steps=1000, is_global_zero=True, sanity_checking=False, callback_metrics={}
    )
    lines = ProgressLines()
    lines.on_train_start(run, None)  # type: ignore[arg-type]
    clock.now, run.global_step = seconds, first + steps
    lines.on_validation_end(run, None)  # type: ignore[arg-type]
    (found,) = re.findall(r"(\d+) s left", capsys.readouterr().out)
    assert int(found) == left


class _Spy(Throughput):
    """Notes when it judges."""

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.judged: list[tuple[int, int]] = []

    def _judge(self, share: float) -> None:
        self.judged.append((self.step, self.seen))
        super()._judge(share)


def test_accumulated_batches_count_as_one_step(tmp_path: Path) -> None:
    """An interval begins at none of its batches, and the pictures of all of them count."""
    spy = _Spy(every=2)
    run = trainer(tmp_path, 4, callbacks=[spy], accumulate_grad_batches=3, limit_val_batches=0)
    run.fit(distiller({"ce": CrossEntropy()}, None), datamodule=shapes())
    assert spy.judged == [(2, 2 * 3 * 4), (4, 2 * 3 * 4)]
