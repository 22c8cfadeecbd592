"""The parts, and who does them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idd_seg.benchmarks.gpu.bench import Bench
from idd_seg.benchmarks.gpu.budget import Share
from idd_seg.benchmarks.gpu.repeats import run_determinism, run_resume
from idd_seg.benchmarks.gpu.shares import SHARES
from idd_seg.benchmarks.gpu.study import run_study
from idd_seg.benchmarks.gpu.suites import run_suite, run_tests


@dataclass(frozen=True)
class Part:
    """A part of the whole: what it does, and its share of the time."""

    name: str
    share: Share
    do: Callable[[Bench], None]


DONE_BY: dict[str, Callable[[Bench], None]] = {
    "tests": run_tests,
    "step": run_suite,
    "determinism": run_determinism,
    "resume": run_resume,
    "losses": run_suite,
    "data": run_suite,
    "study": run_study,
}
PARTS = tuple(Part(name, share, DONE_BY[name]) for name, share in SHARES.items())
