"""`python -m idd_seg.benchmarks.gpu`: all that is to be known of a GPU, within a limit; `make gpu` calls it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idd_seg.benchmarks.gpu.budget import Budget
from idd_seg.benchmarks.gpu.shares import SHARES

LIMIT = 540.0  # seconds
LEAST_LIMIT = 60.0
RESULTS = Path("docs/results/gpu")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return 0, or 1 if one of them failed or was ended before its end."""
    options = _options(arguments)
    budget = Budget(options.limit, max(0.0, time.time() - options.started) if options.started else 0.0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    # The driver is asked whether there is a GPU; this process itself never begins to use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # PyTorch is imported here, when signals are seen to and the arguments are known to be right.
    from idd_seg.benchmarks.gpu.run import run_parts

    return run_parts(options, budget)


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m idd_seg.benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, which measure nothing: a rehearsal")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds of all together, {LIMIT:.0f} by default")
    parser.add_argument(
        "--started", type=float, help="when the limit began to run, in seconds since 1970; now by default"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=list(SHARES), default=list(SHARES), help="some of them; all by default"
    )
    parser.add_argument("--work", type=Path, default=Path("outputs/gpu"), help="folder of runs and logs")
    parser.add_argument("--results", type=Path, help=f"folder of the JSON: {RESULTS} for cuda, else WORK/results")
    parser.add_argument("--seed", type=int, default=0)
    found = parser.parse_args(arguments)
    if found.limit < LEAST_LIMIT:
        parser.error(f"--limit must be at least {LEAST_LIMIT:.0f} seconds, got {found.limit:g}")
    if found.results is None:
        is_measured = found.device == "cuda" and not found.tiny
        found.results = RESULTS if is_measured else found.work / "results"
    return found


def _stop(number: int, frame: Any) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # what follows ends the commands, and is not to be disturbed
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
