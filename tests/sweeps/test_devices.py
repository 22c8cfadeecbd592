"""Which GPUs a job of a sweep sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from idd_seg.errors import ConfigError
from idd_seg.sweeps.devices import jobs_at_once, take, visible_devices

SMI = "#!/bin/sh\n[ \"$1\" = --query-gpu=index,uuid ] && printf '0, GPU-1\\n1, GPU-2\\n'\n"


@pytest.mark.parametrize(
    ("value", "expected"), [("0,2", ["0", "2"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("-1", [])]
)
def test_what_is_hidden_stays_hidden(value: str, expected: list[str]) -> None:
    assert visible_devices({"CUDA_VISIBLE_DEVICES": value}) == expected


def test_all_devices_are_named_by_their_uuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_devices({}) == ["GPU-1", "GPU-2"]
    tool.unlink()
    assert visible_devices({}) == []


def test_a_device_is_held_under_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep with CUDA_VISIBLE_DEVICES=0,1 and one without it call the same GPUs differently."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    first = take(["1"], 1, tmp_path)
    assert first is not None
    assert first[0] == ["1"]
    second = take(visible_devices({}), 1, tmp_path)
    assert second is not None
    assert second[0] == ["GPU-1"]
    assert take(["0", "1"], 1, tmp_path) is None


def test_jobs_at_once() -> None:
    assert jobs_at_once(None, 1, []) == 2
    assert jobs_at_once(5, 1, []) == 5
    assert jobs_at_once(None, 1, ["0", "1", "2"]) == 3
    assert jobs_at_once(None, 2, ["0", "1", "2", "3", "4"]) == 2
    assert jobs_at_once(1, 2, ["0", "1"]) == 1


@pytest.mark.parametrize(
    ("n_jobs", "per_job", "named"),
    [(3, 1, "n_jobs=3"), (None, 3, "gpus_per_job=3"), (0, 1, "got '0'"), (None, "auto", "got 'auto'")],
)
def test_jobs_that_do_not_fit_are_refused(n_jobs: int | None, per_job: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        jobs_at_once(n_jobs, per_job, ["0", "1"])


def test_a_device_is_held_once_and_all_or_none_are_taken(tmp_path: Path) -> None:
    first = take(["0", "1", "2"], 2, tmp_path)
    assert first is not None
    assert first[0] == ["0", "1"]
    assert take(["0", "1", "2"], 2, tmp_path) is None
    second = take(["0", "1", "2"], 1, tmp_path)
    assert second is not None
    assert second[0] == ["2"]
    for lock in first[1]:
        lock.release()
    again = take(["0", "1", "2"], 2, tmp_path)
    assert again is not None
    assert again[0] == ["0", "1"]


def test_a_killed_process_frees_its_devices(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from idd_seg.sweeps.devices import take; "
        f"held = take(['0'], 1, Path({str(tmp_path)!r})); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert take(["0"], 1, tmp_path) is not None
