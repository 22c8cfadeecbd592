"""Tests on a real SLURM: `make test-cluster` runs them; they take too long, and too much of the machine, for others."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.slurm import missing

ASKED = "IDD_SEG_TEST_CLUSTER"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out where nobody asked for them, and where no SLURM can be brought up."""
    here = [item for item in items if Path(__file__).parent in item.path.parents and item.get_closest_marker("cluster")]
    if not here:
        return
    reason = missing(install=True) if os.environ.get(ASKED) == "1" else "make test-cluster runs it"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is taken down then, too
    for item in here:
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
