"""Seeds made of several numbers."""

from __future__ import annotations

import numpy as np


def mix(*numbers: int) -> int:
    """Mix non-negative numbers into one seed below 2**63."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
