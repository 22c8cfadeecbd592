"""What all tests share: no network, one thread, and a network small enough for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

# Read at import by the packages they address.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from idd_seg.models.heads.psp import PSPHead
from idd_seg.models.segmenter import Segmenter
from tests.drawn import draw, left_out

torch.set_num_threads(1)

# A shell's job in the background ignores ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = {"stem_type": "deep", "stem_width": 8, "channels": [8, 16, 32, 64], "layers": [1, 1, 1, 1]}

# Files of whole runs: each takes minutes, so that two processes share the work evenly only if these begin.
LONG = ("test_docs", "test_cli", "test_distributed", "test_training", "test_multirun", "test_resume", "test_train")


def pytest_report_header() -> str:
    return f"tests of which a share is taken: DRAW={draw()} repeats it"


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Count what was not drawn for this commit as slow, and let the long files begin."""
    quick = {item.nodeid.removeprefix("tests/"): item for item in items if item.get_closest_marker("slow") is None}
    for name in left_out(quick):
        quick[name].add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture
def tiny_segmenter() -> Callable[..., Segmenter]:
    """Build the demo's student with fresh random weights, of 5 classes unless told otherwise."""

    def build(**changes: Any) -> Segmenter:
        torch.manual_seed(changes.pop("seed", 0))
        return Segmenter(**{"backbone": "resnet18", "head": PSPHead, "num_classes": 5, "options": TINY, **changes})

    return build
