"""`python -m tests.chaos`: runs and readers under faults; a table, a JSON file, exit code 1 unless all survive."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.chaos import faults, groups, inputs, signs
from tests.chaos.folders import folders
from tests.chaos.kills import PLAIN, RICH, kills, moments, reference
from tests.chaos.options import options, spellings
from tests.chaos.outcome import Outcome, as_json, markdown

Lane = Callable[[Path], Iterator[Outcome]]


def killing(seed: int, short: bool) -> Lane:
    def lane(folder: Path) -> Iterator[Outcome]:
        if short:
            yield from kills("killed, one process", PLAIN, folder, moments(seed, 2))
            return
        yield from kills("killed, one process", PLAIN, folder, moments(seed, 30))
        yield from kills("killed, all losses, 2 loader processes", RICH, folder, moments(seed + 1, 20))
        yield from groups.kill_groups(folder, seed, 4)

    return lane


def faulty(seed: int, short: bool) -> Lane:
    def lane(folder: Path) -> Iterator[Outcome]:
        for subject in inputs.subjects(folder):
            yield from inputs.mutate(subject, 6 if short else 60, seed)
        yield from folders(folder / "drawn", seed, 40 if short else 400)
        expected = reference(PLAIN, folder, "whole")
        if short:
            yield from faults.damaged_checkpoints(folder, expected)
            return
        yield from faults.full_disks(folder, expected)
        yield from faults.damaged_checkpoints(folder, expected)
        yield from faults.clocks(folder, expected, seed, 3)
        yield from faults.two_runs(folder)
        yield from faults.workers(folder)
        yield from options(folder, seed, 100)
        yield from spellings(folder, seed, 60)
        yield from groups.standing_still(folder)

    return lane


def campaign(lanes: Sequence[Lane], folder: Path) -> list[Outcome]:
    """Run the lanes beside each other, each in a fork with a folder of its own."""
    children = []
    for number, lane in enumerate(lanes):
        place = folder / f"lane{number}"
        place.mkdir()
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            os._exit(_run(lane, place))
        children.append((pid, place))
    found = []
    for pid, place in children:
        os.waitpid(pid, 0)
        lines = (place / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
        found += [Outcome(**json.loads(line)) for line in lines]
        if not (place / "lane.done").is_file():
            found.append(Outcome("the campaign itself", place.name, bad="unexplained", note="a lane did not end"))
    return found


def _run(lane: Lane, folder: Path) -> int:
    signs.BOARD.renew()
    with (folder / "outcomes.jsonl").open("w", encoding="utf-8", buffering=1) as file:
        try:
            for outcome in lane(folder):
                file.write(json.dumps(vars(outcome)) + "\n")
                if outcome.bad:
                    print(f"{outcome.bad}: {outcome.group}, {outcome.case}\n{outcome.note}", flush=True)
        except BaseException:
            traceback.print_exc()
            return 1
    (folder / "lane.done").touch()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a sample of each, for the tests")
    parser.add_argument("--out", type=Path, default=Path("outputs/chaos.json"))
    given = parser.parse_args()
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        found = campaign([killing(given.seed, given.short), faulty(given.seed, given.short)], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - start
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(as_json(found, given.seed, seconds), indent=1) + "\n", encoding="utf-8")
    print(markdown(found))
    print(f"\nseed {given.seed}, {seconds:.0f} s; each case: {given.out}")
    return 0 if found and not any(outcome.bad for outcome in found) else 1


if __name__ == "__main__":
    sys.exit(main())
