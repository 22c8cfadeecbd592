"""The scripts beside the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "summarise.py"


def summarise(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=60)


def make_run(folder: Path, miou: float) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"last": {"miou": miou}}))
    return folder


def test_mean_deviation_and_paired_gain(tmp_path: Path) -> None:
    a, b, c, d = (make_run(tmp_path / str(i), miou) for i, miou in enumerate((0.40, 0.42, 0.43, 0.47)))
    result = summarise(f"twin={a},{b}", f"student={c},{d}")
    # Gains 3 and 5: mean 4, deviation sqrt(2).
    assert result.stdout.splitlines()[2:] == [
        "| twin | 2 | 41.00 ± 1.41 | - |",
        "| student | 2 | 45.00 ± 2.83 | 4.00 ± 1.41 |",
    ]


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"last"')
    result = summarise(f"twin={tmp_path}")
    assert result.returncode == 1
    assert str(tmp_path / "metrics.json") in result.stderr
    assert "Traceback" not in result.stderr
