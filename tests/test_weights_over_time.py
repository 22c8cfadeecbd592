"""Terms that come and go over a run: what is computed, what is logged, and what is refused."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from idd_seg.distillation.gradient_balance import GradientBalance
from idd_seg.distillation.module import Distiller
from idd_seg.distillation.teacher_times import TeacherTimes
from idd_seg.distillation.term_checks import ALWAYS, zero_path
from idd_seg.errors import ConfigError
from idd_seg.losses.ce import CrossEntropy
from idd_seg.losses.fitnet import Hint
from idd_seg.losses.kd import PixelWise
from idd_seg.losses.schedule import WeightSchedule
from idd_seg.losses.term import Term
from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch, Outputs
from tests.conftest import TINY
from tests.ranks import ranks_of

CLASSES = 5


def network(seed: int, width: int = 8, **changes: Any) -> Segmenter:
    torch.manual_seed(seed)
    options = {**TINY, "stem_width": width, "channels": [width, 2 * width, 4 * width, 8 * width]}
    return Segmenter("resnet18", PSPHead, CLASSES, options=options, **changes)


def batches(count: int = 8) -> DataLoader[Batch]:
    generator = torch.Generator().manual_seed(0)
    found = [
        Batch(
            torch.randn(2, 3, 32, 32, generator=generator),
            torch.randint(CLASSES, (2, 32, 32), generator=generator),
            torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(2, 4),
            ["x", "y"],
        )
        for _ in range(count)
    ]
    return DataLoader(found, batch_size=None)  # type: ignore[arg-type]


def distiller(
    terms: Mapping[str, Term], balance: GradientBalance | None = None, times: TeacherTimes = ALWAYS, **changes: Any
) -> Distiller:
    return Distiller(
        network(0, **changes),
        FrozenTeacher(network(1, width=4)),
        terms,
        partial(torch.optim.SGD, lr=0.01),
        partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
        balance=balance,
        teacher_times=times,
    )


def fit(module: Distiller, folder: Path, steps: int = 6) -> list[dict[str, str]]:
    """Train and return what was logged, step by step."""
    logger = CSVLogger(folder, name="", version="")
    L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, batches())
    with (folder / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


class Counted(PixelWise):
    """Counts what is asked of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.updates = self.calls = 0

    def update(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        self.updates += 1

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        self.calls += 1
        return super().forward(student, teacher, batch)


def test_a_stopped_term_is_neither_computed_nor_updated_nor_the_teacher_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = Counted(schedule=WeightSchedule(stop=4))
    module = distiller({"ce": CrossEntropy(), "kd": term})
    asked = []
    monkeypatch.setattr(
        module.teacher, "forward", lambda image, ask=module.teacher.forward: asked.append(1) or ask(image)
    )
    fit(module, tmp_path)
    assert (term.calls, term.updates, len(asked)) == (4, 4, 4)


def test_a_teacher_may_be_asked_at_every_other_step_and_counts_twice_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    term = Counted(weight=3.0)
    module = distiller({"ce": CrossEntropy(), "kd": term}, times=TeacherTimes(every=2))
    asked = []
    monkeypatch.setattr(
        module.teacher, "forward", lambda image, ask=module.teacher.forward: asked.append(1) or ask(image)
    )
    rows = fit(module, tmp_path)
    assert (term.calls, term.updates, len(asked)) == (3, 3, 3)
    raw, weighted = ([float(row[name]) for row in rows] for name in ("train/kd", "train/kd_weighted"))
    assert [math.isnan(value) for value in raw] == [True, False] * 3
    assert weighted[1::2] == pytest.approx([6.0 * value for value in raw[1::2]])
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(
        [
            float(row["train/ce"]) + (6.0 * value if step % 2 else 0.0)
            for step, (row, value) in enumerate(zip(rows, raw, strict=True))
        ]
    )


def test_a_teacher_that_is_asked_at_times_needs_a_term_for_the_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.every_n_steps=2 leaves out .* loss=kd has no other"):
        distiller({"kd": PixelWise()}, times=TeacherTimes(every=2))
    ending = {"ce": CrossEntropy(schedule=WeightSchedule(stop=3)), "kd": PixelWise()}
    with pytest.raises(ConfigError, match=r"teacher\.stop=2 leaves out .* ce ends before the run does; let one go on"):
        fit(distiller(ending, times=TeacherTimes(stop=2)), tmp_path)


def test_a_teacher_may_be_asked_for_a_part_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit as by schedules of its terms; the factor of every other step comes on top."""
    term = Counted(weight=3.0)
    module = distiller({"ce": CrossEntropy(), "kd": term}, times=TeacherTimes(start=1, stop=4))
    asked = []
    monkeypatch.setattr(
        module.teacher, "forward", lambda image, ask=module.teacher.forward: asked.append(1) or ask(image)
    )
    rows = fit(module, tmp_path)
    assert (term.calls, term.updates, len(asked)) == (3, 3, 3)
    assert [math.isnan(float(row["train/kd"])) for row in rows] == [True, False, False, False, True, True]
    early = distiller({"ce": CrossEntropy(), "kd": PixelWise(weight=3.0)}, times=TeacherTimes(stop=4))
    stopped = distiller({"ce": CrossEntropy(), "kd": PixelWise(weight=3.0, schedule=WeightSchedule(stop=4))})
    fit(early, tmp_path / "early")
    fit(stopped, tmp_path / "stopped")
    for mine, theirs in zip(early.student.parameters(), stopped.student.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 2, 5])
@pytest.mark.parametrize("stop", [None, 6, 9])
def test_the_steps_that_ask_are_those_that_count(every: int, start: int, stop: int | None) -> None:
    times = TeacherTimes(every, start, stop)
    for steps in range(14):
        expected = [
            float(every) if step >= start and (stop is None or step < stop) and step % every == every - 1 else 0.0
            for step in range(steps)
        ]
        assert [times.factor(step) for step in range(steps)] == expected
        assert times.asked(steps) == sum(factor > 0 for factor in expected)


@pytest.mark.parametrize(("every", "start", "stop"), [(1, 4, 4), (1, 5, 2), (4, 0, 3), (4, 4, 7)])
def test_a_time_without_a_step_that_asks_is_refused(every: int, start: int, stop: int) -> None:
    with pytest.raises(ConfigError, match=rf"teacher\.stop={stop}: there is no step at which the teacher"):
        TeacherTimes(every, start, stop)


def test_a_run_that_ends_before_its_teacher_is_asked_is_refused(tmp_path: Path) -> None:
    module = distiller({"ce": CrossEntropy(), "kd": PixelWise()}, times=TeacherTimes(start=6))
    with pytest.raises(ConfigError, match=r"teacher\.start=6 never asks the teacher in a run of 6 steps"):
        fit(module, tmp_path)


def test_a_stopped_term_changes_nothing_any_more(tmp_path: Path) -> None:
    """From the stop on the run goes as one that never had the term."""
    stopped = distiller({"ce": CrossEntropy(), "kd": PixelWise(weight=100.0, schedule=WeightSchedule(stop=0))})
    alone = distiller({"ce": CrossEntropy()})
    fit(stopped, tmp_path / "stopped")
    fit(alone, tmp_path / "alone")
    for ours, theirs in zip(stopped.student.parameters(), alone.student.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_that_change_are_logged_and_a_term_left_out_is_not_repeated(tmp_path: Path) -> None:
    kd = PixelWise(weight=8.0, schedule=WeightSchedule(warmup=1, stop=4))
    rows = fit(distiller({"ce": CrossEntropy(), "kd": kd}), tmp_path)
    assert [float(row["train/kd_weight"]) for row in rows] == [4, 8, 8, 8, 0, 0]
    assert "train/ce_weight" not in rows[0]
    for step, row in enumerate(rows):
        raw, weighted = float(row["train/kd"]), float(row["train/kd_weighted"])
        if step < 4:
            assert weighted == pytest.approx(float(row["train/kd_weight"]) * raw, rel=1e-5)
            assert weighted > 0
        else:
            assert raw != raw
            assert weighted == 0
        expected = float(row["train/ce_weighted"]) + weighted
        assert float(row["train/loss"]) == pytest.approx(expected, rel=1e-5)


def test_terms_that_all_stop_are_refused_at_once() -> None:
    terms = {
        "ce": CrossEntropy(schedule=WeightSchedule(stop=3)),
        "kd": PixelWise(schedule=WeightSchedule(stop=7)),
    }
    with pytest.raises(ConfigError, match=r"all terms stop \(ce, kd\): from step 7 on"):
        distiller(terms)


def test_a_run_that_outlives_its_terms_is_refused_before_its_first_step(tmp_path: Path) -> None:
    terms = {
        "ce": CrossEntropy(schedule=WeightSchedule(decay="cosine", until=5)),
        "kd": PixelWise(schedule=WeightSchedule(stop=3)),
    }
    module = distiller(terms)
    with pytest.raises(ConfigError, match="no term is left at step 5: the weights of ce, kd"):
        fit(module, tmp_path)
    assert module.global_step == 0


def test_a_run_may_end_as_its_terms_do(tmp_path: Path) -> None:
    assert len(fit(distiller({"ce": CrossEntropy(schedule=WeightSchedule(decay="cosine", until=6))}), tmp_path)) == 6


class Ending(PixelWise):
    """A weight that no schedule tells of."""

    def weight_at(self, step: int) -> float:
        return float(step < 2)


def test_a_step_without_terms_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no term is left at step 2"):
        fit(distiller({"kd": Ending()}), tmp_path)


def test_a_zero_path_is_zero_for_any_values() -> None:
    good, bad, frozen = (nn.Parameter(torch.tensor(x)) for x in ([1.0, 2.0], [float("nan"), float("inf")], [1.0]))
    frozen.requires_grad_(False)
    found = zero_path([good, bad, frozen])
    assert isinstance(found, Tensor)
    assert found.item() == 0
    found.backward()
    for parameter in (good, bad):
        assert torch.equal(parameter.grad, torch.zeros(2))  # type: ignore[arg-type]
    assert frozen.grad is None
    assert zero_path([frozen]) == 0


# Two processes. fitnet's adapter, and the auxiliary head that only ce reaches, are left without a gradient.

TERMS = {
    "adapter": lambda: {"ce": CrossEntropy(), "fitnet": Hint(schedule=WeightSchedule(stop=2))},
    "auxiliary": lambda: {"ce": CrossEntropy(schedule=WeightSchedule(stop=2)), "kd": PixelWise()},
}


class Stepped(Distiller):
    """A Distiller without a trainer: its step is counted here, and nothing is logged."""

    step_now = 0
    global_step = property(lambda self: self.step_now)  # type: ignore[assignment]
    global_rank = property(lambda self: dist.get_rank() if dist.is_initialized() else 0)  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Tensor:
        return self.training_step(batch, 0)

    def _logs_now(self) -> bool:
        return False

    def _log_terms(self, *values: object) -> None:
        pass


def train_stepped(name: str, rank: int | None) -> list[Tensor]:
    """The student's weights after four steps, on this rank's images or on all; dropout and BatchNorm stand still."""
    torch.manual_seed(0)
    module = Stepped(
        network(0, dropout=0.0),
        FrozenTeacher(network(1, width=4)),
        TERMS[name](),
        partial(torch.optim.SGD, lr=0.01),
        partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
    )
    for part in module.student.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    model = module if rank is None else DistributedDataParallel(module)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.01)
    for step, batch in zip(range(4), batches(), strict=False):
        module.step_now = step
        if rank is not None:
            own = slice(rank, rank + 1)
            batch = Batch(batch.image[own], batch.label[own], batch.box[own], batch.names[own])
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()
    return [p.detach().clone() for p in module.student.parameters()]


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        torch.save({name: train_stepped(name, rank) for name in TERMS}, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    folder = tmp_path_factory.mktemp("world")
    ranks_of(work, str(folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", TERMS)
def test_parameters_that_a_stopped_term_leaves_behind_do_not_stop_the_other_processes(
    name: str, ranks: list[dict[str, list[Tensor]]]
) -> None:
    expected = train_stepped(name, None)
    for result in ranks:
        for ours, whole in zip(result[name], expected, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)
