"""Freed memory stays with the process, unless the user has settings of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from idd_seg.runs import allocator

STEPS = """
import resource, torch
from idd_seg.runs.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
torch.set_num_threads(1)
for step in range(20):
    if step == 10:  # small blocks have found their places
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = torch.ones(2**24)  # 64 MB: glibc never raises its own threshold so far
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep: bool) -> int:
    found = subprocess.run([sys.executable, "-c", STEPS.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has mallopt")
def test_a_step_takes_the_pages_of_the_step_before() -> None:
    assert _faults(keep=True) < 0.05 * _faults(keep=False)


def test_settings_in_the_environment_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert not allocator.keep_freed_memory()
