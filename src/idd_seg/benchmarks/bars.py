"""What the benchmarks of a step are to reach."""

from __future__ import annotations

# Of the step against the bare one, in float32, with the fast settings, and of what is not the networks'.
PLAIN, FAST, LARGE_FAST, REST = 1.03, 0.55, 0.50, 0.03
# On a GPU: all settings against float32, share of the matrix rate in bfloat16, peak memory against float32.
GPU_SPEED, GPU_RATE, GPU_MEMORY = 3.0, 0.40, 0.55
