"""What libraries raise, as one line for a user."""

from __future__ import annotations

import pytest
import torch

from idd_seg.config.messages import refused_by_a_library


@pytest.mark.parametrize(
    ("error", "begins"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
            "the GPU has not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB.)",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "the machine has not enough memory ([enforce fail] DefaultCPUAllocator",
        ),
        (MemoryError("Unable to allocate 3 TiB"), "the machine has not enough memory (Unable to allocate 3 TiB)"),
    ],
)
def test_memory_that_does_not_suffice(error: Exception, begins: str) -> None:
    said = refused_by_a_library(error)
    assert said is not None
    assert said.startswith(begins)
    assert said.endswith("docs/training.md, 'When memory runs out'")
    assert "\n" not in said


def test_other_errors_are_not_explained() -> None:
    assert refused_by_a_library(RuntimeError("shape mismatch")) is None


def test_pytorchs_own_error_is_known_by_its_name() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    said = refused_by_a_library(caught.value)
    assert said is not None
    assert said.startswith("the machine has not enough memory")
