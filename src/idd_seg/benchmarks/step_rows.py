"""What was measured of the step, as rows of a table with their bars, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from idd_seg.benchmarks.bounds import bound
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import Timing

# Bars: of the step against the bare one, in float32, with the fast settings, and of what is not the networks'.
PLAIN, FAST, LARGE_FAST, REST = 1.03, 0.55, 0.50, 0.03
GPU_SPEED, GPU_RATE, GPU_MEMORY = 3.0, 0.40, 0.55


@dataclass(frozen=True)
class Way:
    """How the networks are computed."""

    name: str
    speed: dict[str, Any]
    precision: str
    bar: float | None = None


@dataclass
class Measured:
    """Seconds of a step of one way, and of the bare step between; the parts of some further steps."""

    ours: Timing
    bare: Timing
    parts: dict[str, float]
    bare_parts: dict[str, float]
    memory: int | None = None


def rows_of(found: dict[str, Any], device: torch.device) -> list[Row]:
    """Return the table of one size."""
    size = f"{found['batch']} x {found['size'][0]} x {found['size'][1]}"
    rows = []
    for way, m in found["ways"].values():
        rows.append(
            Row(
                f"step, {size}, {way.name}",
                str(m.ours),
                f"bare: {m.bare}",
                m.ours.median / m.bare.median,
                "less",
                way.bar,
            )
        )
        extra = m.parts["rest"] + max(0.0, m.parts["terms"] - m.bare_parts["terms"])
        whole = sum(m.parts.values())
        what = f"  of it trainer, logging, terms beyond cross-entropy, {way.name}"
        rows.append(
            Row(
                what,
                f"{1e3 * extra:.1f} ms",
                f"{1e3 * whole:.1f} ms",
                extra / whole,
                "less",
                REST if way.bar == PLAIN else None,
            )
        )
        least = bound(found, way.precision)
        rows.append(
            Row(
                f"  against the arithmetic bound, {way.name}",
                str(m.ours),
                f"{1e3 * least:.1f} ms",
                m.ours.median / least,
                "less",
            )
        )
    if device.type == "cuda":
        rows += _gpu_rows(found, size)
    return rows


def _gpu_rows(found: dict[str, Any], size: str) -> list[Row]:
    (_, plain), (_, fast) = found["ways"].values()
    rate = found["flops"] / fast.ours.median / found["rates"]["bfloat16"]
    memory = fast.memory / plain.memory
    return [
        Row(
            f"all settings against float32, {size}",
            str(fast.ours),
            str(plain.ours),
            plain.ours.median / fast.ours.median,
            "more",
            GPU_SPEED,
        ),
        Row(
            "  share of the bfloat16 matrix rate",
            f"{found['flops'] / fast.ours.median / 1e12:.0f} T/s",
            f"{found['rates']['bfloat16'] / 1e12:.0f} T/s",
            rate,
            "more",
            GPU_RATE,
        ),
        Row("  peak memory", f"{fast.memory / 1e9:.1f} GB", f"{plain.memory / 1e9:.1f} GB", memory, "less", GPU_MEMORY),
    ]


def plain_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return plain values for JSON."""
    measured = {
        name: {
            "precision": way.precision,
            "speed": way.speed,
            "seconds": vars(m.ours),
            "bare_seconds": vars(m.bare),
            "parts": m.parts,
            "bare_parts": m.bare_parts,
            "peak_memory": m.memory,
            "bound_seconds": bound(found, way.precision),
        }
        for name, (way, m) in found["ways"].items()
    }
    return {**found, "ways": measured}
