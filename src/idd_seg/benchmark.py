"""`python -m idd_seg.benchmark SUITE`: how fast this machine does it, as ratios within one run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.errors import ConfigError, suggest

SUITES = ("checkpoint", "data", "distributed", "eval", "generated", "logging", "losses", "model", "step")


def main(cfg: DictConfig) -> None:
    """Run the suite `cfg.suite`, print its table and write `benchmark.json` in the run folder, row by row."""
    if cfg.suite not in SUITES:
        raise ConfigError(f"there is no suite '{cfg.suite}'{suggest(cfg.suite, SUITES)} They are {', '.join(SUITES)}")
    from idd_seg.benchmarks.rows import Row, print_rows
    from idd_seg.evaluation.device import pick_device
    from idd_seg.runs.allocator import keep_freed_memory
    from idd_seg.runs.provenance import describe_run, write_json

    device, run_dir = pick_device(cfg.device), Path(cfg.run_dir)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    describe_run(cfg, run_dir)
    rows: list[Row] = []
    # As they come, where a suite hands them over one by one: a stop loses none.
    for row in importlib.import_module(f"idd_seg.benchmarks.{cfg.suite}").run(cfg, device):
        rows.append(row)
        write_json(run_dir / "benchmark.json", {"suite": cfg.suite, "rows": [each.as_dict() for each in rows]})
    if rows:
        print_rows(f"benchmark {cfg.suite}, {device}", rows)
    print(f"run folder: {run_dir}")


if __name__ == "__main__":
    # The suite may stand by itself: `benchmark losses`.
    sys.argv[1:2] = [word if "=" in word or word.startswith("-") else f"suite={word}" for word in sys.argv[1:2]]
    command_line.run(main, "benchmark")
