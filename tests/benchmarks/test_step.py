"""The benchmark of a step: its parts add up, its counts are right, its files are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from idd_seg import benchmark
from idd_seg.benchmarks import stopwatch
from idd_seg.benchmarks.bounds import bound, count_step, measure_matrix_rate
from idd_seg.benchmarks.step import ways
from idd_seg.benchmarks.step_rows import Measured, Way, rows_of_way
from idd_seg.benchmarks.stopwatch import PARTS, Stopwatch
from idd_seg.benchmarks.timing import Timing
from idd_seg.types import Outputs
from tests.commands import call

CPU = torch.device("cpu")


def test_parts_within_parts_count_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    clock = Stopwatch(CPU)
    with clock.within("optimizer"):
        now[0] += 2
        with clock.within("backward"):
            now[0] += 5
        now[0] += 1
    now[0] += 100
    with clock.within("backward"):
        now[0] += 0.5
    assert clock.seconds == {"optimizer": 3, "backward": 5.5}


def test_a_network_s_forward_passes_are_watched() -> None:
    clock, network = Stopwatch(CPU), nn.Identity()
    clock.watch(network, "student")
    network(torch.zeros(1))
    assert set(clock.seconds) == {"student"}
    assert clock.open == []


class One(nn.Module):
    """A single convolution: 3 -> 4 channels, 3 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Outputs:
        return Outputs(self.conv(image), {})


def test_operations_and_bytes_by_hand() -> None:
    image = torch.zeros(2, 3, 5, 7)
    flops, held = count_step(One(), One().requires_grad_(False), image)
    forward = 2 * (2 * 5 * 7) * 4 * (3 * 9)
    # Backward: the weights' gradient alone; the image has none.
    assert flops == 3 * forward
    once = 4 * (image.numel() + 2 * 4 * 5 * 7 + 4 * 3 * 9)
    assert held == 4 * once


def test_the_bound_is_the_larger_of_both() -> None:
    found = {"flops": 100, "bytes": 30, "rates": {"float32": 10.0, "bfloat16": 40.0}, "bandwidth": 2.0}
    assert bound(found, "32-true") == 15
    assert bound(found, "bf16-mixed") == 7.5
    assert bound({**found, "bytes": 0}, "32-true") == 10
    assert bound({**found, "bytes": 0}, "bf16-mixed") == 2.5


def test_a_matrix_rate_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("idd_seg.benchmarks.bounds", fromlist=["SIDE"]).SIDE, "cpu", 64)
    assert measure_matrix_rate(CPU, torch.float32, 2) > 1e6


def measured(seconds: float, memory: int, parts: bool = True) -> Measured:
    timing = Timing(seconds, seconds, seconds)
    by_part = dict.fromkeys(PARTS, seconds / len(PARTS)) if parts else {}
    return Measured(timing, timing, by_part, by_part, memory)


def test_rows_of_a_gpu_by_hand() -> None:
    gpu = torch.device("cuda")
    plain, fast = ways(gpu, (512, 512), compiled=False)
    assert not plain.speed["fold_teacher"]
    assert not plain.speed["split_pyramid"]
    compiled = Way("fast, compiled", {**fast.speed, "compile": True}, fast.precision)
    found = {"size": (512, 512), "batch": 16, "flops": 40e12, "bytes": 1, "bandwidth": 3e12}
    found |= {"rates": {"float32": 50e12, "bfloat16": 800e12}}
    found["ways"] = {
        plain.name: (plain, measured(1.0, 10 * 10**9)),
        fast.name: (fast, measured(0.25, 6 * 10**9)),
        compiled.name: (compiled, measured(0.1, 5 * 10**9, parts=False)),
    }
    assert len(rows_of_way(found, plain.name, gpu)) == 3
    speed, rate, memory = rows_of_way(found, fast.name, gpu)[-3:]
    assert (speed.ratio, rate.ratio, memory.ratio) == pytest.approx((4.0, 0.2, 0.6))
    assert [row.reached for row in (speed, rate, memory)] == [True, False, False]
    names = [row.what for row in rows_of_way(found, compiled.name, gpu)]
    assert not any("trainer, logging" in name for name in names)
    assert names[2] == "fast, compiled against float32, as written, 16 x 512 x 512"
    assert rows_of_way(found, compiled.name, gpu)[-1].reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["suite=step", "step.block=0"], "step.block must be a whole number >= 1 or null, got '0'"),
        (["suite=losses", "losses.only=[ide]"], "losses.only: there is no 'ide'; did you mean 'idd'?"),
        (["suite=losses", "losses.only=idd"], "losses.only must be a list of some of idd, ifvd"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [*options, "device=cpu", "hydra.run.dir=run"]
    assert call(benchmark, *words, folder=tmp_path, patch=monkeypatch) == 1
    assert message in capfd.readouterr().err


@pytest.mark.slow
def test_the_parts_of_a_step_add_up_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["device=cpu", "student=small", "teacher=medium", "step.sizes=[[64,64]]", "repeats=3"]
    code = call(benchmark, "suite=step", *options, "hydra.run.dir=run", folder=tmp_path, patch=monkeypatch)
    assert code == 0
    content = json.loads((tmp_path / "run" / "step.json").read_text())
    (size,) = content["sizes"]
    assert size["size"] == [64, 64]
    assert set(size["ways"]) == {"float32", "fast"}
    for way in size["ways"].values():
        assert set(way["parts"]) == set(PARTS)
        assert all(seconds >= 0 for seconds in way["parts"].values())
        for name in ("teacher", "student", "terms", "backward", "optimizer"):
            assert way["parts"][name] > 0, name
            assert way["bare_parts"][name] > 0, name
        # Measured on other steps of the same run; a machine at other work is slow now and then.
        assert sum(way["parts"].values()) == pytest.approx(way["seconds"]["median"], rel=0.6)
        assert way["bound_seconds"] > 0
    assert (tmp_path / "run" / "step.png").stat().st_size > 5000
