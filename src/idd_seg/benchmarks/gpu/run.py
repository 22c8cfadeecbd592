"""The course of all parts: each in its time, each recorded however it ends."""

from __future__ import annotations

import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from idd_seg.benchmarks.gpu.bench import Bench, LeftOutError, Place
from idd_seg.benchmarks.gpu.budget import Budget
from idd_seg.benchmarks.gpu.commands import LINES, CommandError, OutOfTimeError
from idd_seg.benchmarks.gpu.machine import machine
from idd_seg.benchmarks.gpu.parts import PARTS, Part
from idd_seg.benchmarks.gpu.record import BAD, FAILED, FINISHED, LATE, LEFT_OUT, STOPPED, Record

TOP = Path(__file__).parents[4]


def run_parts(options: Any, budget: Budget) -> int:
    """Run the chosen parts in their order; return 0, or 1 if one of them failed or was ended before its end.

    Args:
        options: as the command line of `idd_seg.benchmarks.gpu` has them.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no GPU here; DEVICE=cpu TINY=1 tries everything without one", file=sys.stderr)
        return 2
    place = Place(TOP, options.work.absolute(), options.device, options.tiny, options.seed)
    about = {"seed": place.seed, "tiny": place.tiny, "machine": machine(place.device, TOP)}
    private = {str(place.work): "WORK", str(TOP): ".", sys.prefix: "PYTHON", str(Path.home()): "~"}
    results = options.results.absolute()
    chosen = [part for part in PARTS if part.name in options.parts]
    for part in PARTS:
        shutil.rmtree(place.folder(part.name), ignore_errors=True)  # a part may take what an earlier one has made
    # All files at once: what a folder holds is of one run.
    records = {part.name: Record(results / f"{part.name}.json", about, private) for part in chosen}
    for number, part in enumerate(chosen):
        record = records[part.name]
        seconds = budget.allowed(part.share, [later.share for later in chosen[number + 1 :]])
        if seconds is None:
            record.end(
                LEFT_OUT, f"{budget.left:.0f} of {budget.limit:.0f} seconds were left, of which later parts need some"
            )
        else:
            run_part(part, Bench(place, record, seconds))
        why = f": {record.content['why']}" if record.content["why"] else ""
        print(f"{part.name}: {record.state}{why} ({record.content['seconds'] or 0:.0f} s)", flush=True)
    print(f"results: {options.results}; logs: {options.work / 'logs'}")
    return int(any(record.state in BAD for record in records.values()))


def run_part(part: Part, bench: Bench) -> None:
    """Run one part, and record how it has ended.

    Raises:
        SystemExit, KeyboardInterrupt: after a signal, which is recorded first.
    """
    record = bench.record
    record.begin(bench.seconds)
    try:
        part.do(bench)
    except LeftOutError as reason:
        record.end(LEFT_OUT, str(reason))
    except OutOfTimeError as error:
        record.end(LATE, str(error), error.lines)
    except CommandError as error:
        record.end(FAILED, str(error), error.lines)
    except Exception as error:
        # A mistake of this program itself must not cost the parts that follow.
        record.end(FAILED, f"{type(error).__name__}: {error}", traceback.format_exc().splitlines()[-LINES:])
    except BaseException:
        record.end(STOPPED, "stopped by a signal")
        raise
    else:
        record.end(FINISHED)
