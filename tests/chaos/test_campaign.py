"""A sample of the campaign of `make chaos`; docs/reliability.md has the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.folders import COUNT, Drawn, classes, photograph, read, write
from tests.chaos.kills import moments
from tests.chaos.outcome import Outcome, rows

TOP = Path(__file__).parents[2]


def seed_of_this_commit() -> int:
    """Return another seed for each commit, so that each draws other cases; CHAOS_SEED=N repeats one."""
    if given := os.environ.get("CHAOS_SEED"):
        return int(given)
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=TOP, capture_output=True, text=True, timeout=60)
    return int(git.stdout.strip()[:6] or "0", 16)


def test_a_sample_of_the_campaign_survives(tmp_path: Path) -> None:
    seed = seed_of_this_commit()
    print(f"CHAOS_SEED={seed} repeats this sample")
    # In a process of its own, which has never trained: forks of one that has can't.
    command = [sys.executable, "-m", "tests.chaos", "--short", f"--seed={seed}"]
    command += ["--out", str(tmp_path / "chaos.json")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "chaos.json").read_text())
    assert found["table"][-1]["cases"] == found["table"][-1]["survived"]
    assert int(found["table"][-1]["cases"]) > 100


def test_the_moments_follow_from_the_seed() -> None:
    assert moments(3, 50) == moments(3, 50)
    assert moments(3, 50) != moments(4, 50)
    assert {moment.where for moment in moments(3, 50)} == {"training", "validation", "writing", "start"}


def test_the_table_counts_what_went_wrong() -> None:
    found = [Outcome("a", "1", lost=2), Outcome("a", "2", bad="wrong", noticed=True), Outcome("b", "3", bad="hang")]
    assert rows(found) == [
        ["a", "2", "1", "1", "2", "1", "0", "0"],
        ["b", "1", "0", "0", "0", "0", "1", "0"],
        ["all", "3", "1", "1", "2", "1", "1", "0"],
    ]


def test_swapped_masks_are_seen(tmp_path: Path) -> None:
    drawn = Drawn(tmp_path, [f"p{i}" for i in range(COUNT)])
    for number in range(COUNT):
        write(drawn.image(number), photograph(number))
        write(drawn.mask(number), classes(number))
    assert read(drawn) == []
    write(drawn.mask(0), classes(1))
    assert read(drawn) == [f"{drawn.image(0)}: not the mask of photograph 0"]
