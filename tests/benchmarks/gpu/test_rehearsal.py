"""`make gpu` from its script to its files, at the smallest sizes and without a GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from idd_seg.benchmarks.gpu.shares import SHARES

TOP = Path(__file__).parents[3]
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with four pictures of CamVid's names."""
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        for i in range(4):
            Image.effect_noise((48, 48), 90).convert("RGB").save(tmp_path / "camvid" / split / f"{i}.png")
            Image.new("L", (48, 48), i % 2).save(tmp_path / "camvid" / f"{split}annot" / f"{i}.png")
    return tmp_path


def begun(place: Path, **more: str) -> subprocess.Popen[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("IDD_SEG_R18", "IDD_SEG_R101", "RESULTS")},
        **{"PYTHON": sys.executable, "DEVICE": "cpu", "TINY": "1", "WORK": str(place / "work"), "OMP_NUM_THREADS": "1"},
        **{"IDD_SEG_CAMVID": str(place / "camvid"), "WHEELS": str(place / "none"), **more},
    }
    return subprocess.Popen(
        ["bash", "scripts/gpu.sh"], cwd=TOP, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def results(place: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in (place / "work" / "results").glob("*.json")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_runs_and_is_recorded(place: Path) -> None:
    process = begun(place, LIMIT="1700")
    out, err = process.communicate(timeout=1700)
    found = results(place)
    ends = {name: (one["state"], one["why"], one["last_lines"]) for name, one in found.items()}
    assert process.returncode == 0, f"{ends}\n{out}\n{err}"
    assert list(SHARES) == [line.split(":")[0] for line in out.splitlines()[: len(SHARES)]]
    assert {name: one["state"] for name, one in found.items()} == dict.fromkeys(SHARES, "finished")
    text = json.dumps(found)
    assert str(place) not in text
    assert str(TOP) not in text
    assert len(text) < 100_000
    for one in found.values():
        assert one["tiny"]
        assert one["commands"]
        assert one["machine"]["versions"]["torch"]
        assert 0 < one["seconds"] < one["limit_seconds"]
    result = {name: one["result"] for name, one in found.items()}
    assert result["tests"]["passed"] >= 2
    assert set(result["step"]["sizes"][0]["ways"]) == {"float32", "fast"}
    assert all(len(result[name]["rows"]) >= 2 for name in ("step", "losses", "data"))
    first, second = result["determinism"]["float32"]["sha256"]
    assert first == second == result["resume"]["sha256"][0] == result["resume"]["sha256"][1]
    assert 0 < result["resume"]["stopped_at_step"] < result["resume"]["steps"]
    assert list(result["study"]["methods"]) == ["twin"]
    assert result["study"]["costs"]["teacher"] > 0
    assert result["study"]["pretrained"] == {"student": "from scratch", "teacher": "from scratch"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_stop_keeps_what_there_is(place: Path) -> None:
    process = begun(place, PARTS="determinism data")
    until = time.monotonic() + 120
    while results(place).get("determinism", {}).get("state") != "running" and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, f"{out}\n{err}"
    assert {name: one["state"] for name, one in results(place).items()} == {"determinism": "stopped", "data": "waiting"}


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run([str(SHELLCHECK), "scripts/gpu.sh"], cwd=TOP, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
