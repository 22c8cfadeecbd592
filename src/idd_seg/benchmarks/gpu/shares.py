"""The parts in their order, and their shares of the time."""

from __future__ import annotations

from idd_seg.benchmarks.gpu.budget import Share

# What is worth most comes first; the study takes what is left.
SHARES = {
    "tests": Share(0.04, 0.16),
    "step": Share(0.12, 0.40),
    "determinism": Share(0.06, 0.18),
    "resume": Share(0.05, 0.14),
    "losses": Share(0.05, 0.20),
    "data": Share(0.03, 0.08),
    "study": Share(0.25, 1.0),
}
