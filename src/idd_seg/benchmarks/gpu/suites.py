"""The parts that are other commands of this project: the tests that need a GPU, and suites of `benchmark`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from idd_seg.benchmarks.gpu.bench import Bench, LeftOutError

MARKER = "mark.gpu"
# Of the smallest sizes.
TINY = {
    "step": (
        "step.sizes=[[32,32]]",
        "step.terms=[ce,kd]",
        "student=small",
        "teacher=medium",
        "step.generated=false",
        "step.matrix=128",
    ),
    "losses": ("losses.only=[readings]", "loss=[ce]"),
    "data": (),
}
FULL = {
    "step": ("step.sizes=[[512,512]]", "step.block=3", "step.generated=false", "compile=true", "repeats=5"),
    "losses": ("repeats=9",),
    "data": ("repeats=5",),
}


def run_tests(bench: Bench) -> None:
    """Run the tests that are marked `gpu`; their numbers are the result."""
    tests = bench.place.top / "tests"
    files = sorted(p for p in tests.rglob("test_*.py") if MARKER in p.read_text(encoding="utf-8"))
    if not files:
        raise LeftOutError("there are no tests beside the program; take a checkout")
    names = [str(path.relative_to(bench.place.top)) for path in files]
    log = bench.place.work / "logs" / f"{bench.record.content['part']}_1.log"
    # DRAW: a share of the tests would be drawn by the commit, which a bare checkout does not know.
    env = {"IDD_SEG_TEST_GPU": bench.place.device, "DRAW": "all"}
    try:
        few = ("-k", "twice and (idd or psp)") if bench.place.tiny else ()
        bench.run("pytest", "-q", "-m", "gpu", *few, "-p", "no:cacheprovider", *names, env=env)
    finally:
        bench.record.note(**counts_of(log.read_text(encoding="utf-8") if log.is_file() else ""))


def counts_of(output: str) -> dict[str, int]:
    """Return how many tests passed, failed and so on, as pytest's last line has them; nothing without one."""
    lines = [line for line in output.splitlines() if re.search(r"\bin [\d.]+s", line)]
    return (
        {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", lines[-1])} if lines else {}
    )


def run_suite(bench: Bench) -> None:
    """Run the suite that is called as the part; what it has measured is kept also where it is ended early."""
    suite, folder = str(bench.record.content["part"]), bench.folder("run")
    options = (*TINY[suite], "repeats=1") if bench.place.tiny else FULL[suite]
    for name in ("benchmark.json", "step.json"):
        (folder / name).unlink(missing_ok=True)
    words = (f"device={bench.place.device}", *options, f"seed={bench.place.seed}", f"hydra.run.dir={folder}")
    try:
        bench.run("idd_seg.benchmark", suite, *words)
    finally:
        bench.record.note(rows=_read(folder / "benchmark.json").get("rows", []))
        if (step := _read(folder / "step.json")).get("sizes"):
            bench.record.note(sizes=step["sizes"])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
