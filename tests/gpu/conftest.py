"""The device of these tests: a GPU. `IDD_SEG_TEST_GPU=cpu` tries them without one, `=cuda` does not let them skip."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Read when the GPU is first used; without it products of matrices are refused by deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture
def gpu() -> torch.device:
    asked = os.environ.get("IDD_SEG_TEST_GPU")
    if asked is None and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(asked or "cuda")


@pytest.fixture
def exact() -> Iterator[None]:
    """Products of float32 as they are."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture
def deterministic(exact: None) -> Iterator[None]:
    """As `deterministic=true` has it: what can't be repeated to the bit is refused."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
