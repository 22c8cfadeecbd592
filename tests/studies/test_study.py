"""A whole study: searches, trains, goes on, and says where a run failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import run

SMALL = (
    *("data=shapes", "data.train_length=24", "data.val_length=4", "data.size=[64,64]", "trainer.max_steps=2"),
    *("trainer.val_check_interval=2", "teacher.checkpoint=auto", "teacher.training.max_steps=2", "data.batch_size=4"),
)
QUOTED = ",".join(f'"{word}"' for word in SMALL)
OPTIONS = (
    "study=shapes",
    f"study.common=[{QUOTED}]",
    "study.seeds=[0]",
    "study.factors=[0.5,2.0]",
    'only=["twin","kd"]',
    "probe_steps=2",
)


@pytest.mark.slow
def test_a_study_searches_trains_and_goes_on(tmp_path: Path) -> None:
    found = run("study", *OPTIONS, "jobs=2", cwd=tmp_path, timeout=400)
    assert found.returncode == 0, found.stderr
    results = tmp_path / "outputs" / "studies" / "shapes" / "results"
    names = {p.stem for p in results.glob("*.json")}
    assert names == {
        "search-kd-x0.5-seed0",
        "search-kd-x2-seed0",
        "final-twin-seed0",
        "final-kd-seed0",
        "chosen",
        "portraits",
    }
    chosen = json.loads((results / "chosen.json").read_text())
    final = json.loads((results / "final-kd-seed0.json").read_text())
    assert final["weights"] == chosen["weights"]["kd"]
    assert final["weights"]["kd"] in (0.5, 2.0)
    assert "data.held_out=5" in json.loads((results / "search-kd-x2-seed0.json").read_text())["options"]
    assert "data.held_out=5" not in final["options"]
    assert final["memory"] > 1e8
    assert "| kd | kd " in (results / "table.md").read_text()
    portraits = (results / "portraits.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in portraits[2:]] == ["teacher", "twin", "kd"]
    assert (results / "comparison.png").stat().st_size > 10_000
    # What is finished is left: a second call trains nothing, in a moment.
    before = {p: p.stat().st_mtime_ns for p in results.parent.glob("*/metrics.json")}
    again = run("study", *OPTIONS, cwd=tmp_path, timeout=100)
    assert again.returncode == 0, again.stderr
    assert "..." not in again.stdout
    assert {p: p.stat().st_mtime_ns for p in results.parent.glob("*/metrics.json")} == before
    # A portrait is of the network that lies there: one of another network is not taken for it.
    portraits = results / "portraits.json"
    kept = json.loads(portraits.read_text())
    stale = kept | {"kd, seed 0": {**kept["kd, seed 0"], "network": "another", "near_confusion": 9.0}}
    portraits.write_text(json.dumps(stale))
    assert run("study", *OPTIONS, cwd=tmp_path, timeout=100).returncode == 0
    assert json.loads(portraits.read_text()) == kept


@pytest.mark.slow
def test_a_finished_run_of_other_weights_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    options = (*OPTIONS, 'only=["twin"]', "probe_steps=0")
    assert run("study", *options, cwd=tmp_path, timeout=300).returncode == 0
    found = run("study", *options, "study.methods.twin.weights.ce=2.0", cwd=tmp_path, timeout=100)
    assert found.returncode == 1
    assert "final-twin-seed0: the run failed" in found.stderr
    assert "holds a run with loss.ce_weight=1" in found.stderr


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    found = run("study", *OPTIONS, 'study.search=["optimizer.lr=-1"]', cwd=tmp_path, timeout=100)
    assert found.returncode == 1
    assert "search-kd-x0.5-seed0: the run failed (error: optimizer.lr" in found.stderr
    assert "search-kd-x0.5-seed0.log" in found.stderr
