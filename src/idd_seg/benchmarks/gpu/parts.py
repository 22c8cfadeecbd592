"""The parts, in the order in which they run: what is worth most comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idd_seg.benchmarks.gpu.bench import Bench
from idd_seg.benchmarks.gpu.budget import Share
from idd_seg.benchmarks.gpu.repeats import run_determinism, run_resume
from idd_seg.benchmarks.gpu.study import run_study
from idd_seg.benchmarks.gpu.suites import run_suite, run_tests


@dataclass(frozen=True)
class Part:
    """A part of the whole: what it does, and its share of the time."""

    name: str
    share: Share
    do: Callable[[Bench], None]


PARTS = (
    Part("tests", Share(0.04, 0.16), run_tests),
    Part("step", Share(0.12, 0.33), run_suite),
    Part("determinism", Share(0.06, 0.18), run_determinism),
    Part("resume", Share(0.05, 0.14), run_resume),
    Part("losses", Share(0.05, 0.20), run_suite),
    Part("data", Share(0.03, 0.08), run_suite),
    Part("study", Share(0.25, 1.0), run_study),
)
NAMES = tuple(part.name for part in PARTS)
