"""My callback: what it logs in a short training, what it keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from idd_seg.callbacks.my_callback import MyCallback
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from tests.test_training import distiller, shapes, trainer


def test_logs_the_norm_and_its_growth(tmp_path: Path) -> None:
    module, callback = distiller({"ce": CrossEntropy()}, None), MyCallback(every=1)
    run = trainer(tmp_path, 2, callbacks=[callback], log_every_n_steps=1)
    run.fit(module, datamodule=shapes())
    norm = sum(float(p.detach().square().sum()) for p in module.student.parameters()) ** 0.5
    assert float(run.callback_metrics["train/student_norm"]) == pytest.approx(norm, rel=1e-5)
    assert callback.first is not None
    assert float(run.callback_metrics["train/student_growth"]) == pytest.approx(norm / callback.first, rel=1e-5)


def test_a_run_that_goes_on_knows_where_it_began() -> None:
    callback, later = MyCallback(), MyCallback()
    callback.first = 3.0
    later.load_state_dict(callback.state_dict())
    assert later.first == 3.0


def test_odd_intervals_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.my_callback\.every.*0"):
        MyCallback(every=0)
