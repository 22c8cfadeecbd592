"""What was measured of the step, as rows of a table with their bars, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from idd_seg.benchmarks.bars import GPU_MEMORY, GPU_RATE, GPU_SPEED, PLAIN, REST
from idd_seg.benchmarks.bounds import bound
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import Timing


@dataclass(frozen=True)
class Way:
    """How the networks are computed."""

    name: str
    speed: dict[str, Any]
    precision: str
    bar: float | None = None

    @property
    def compiled(self) -> bool:
        """Tell whether the networks are compiled."""
        return bool(self.speed.get("compile"))


@dataclass
class Measured:
    """Seconds of a step of one way, and of the bare step between; the parts of some further steps, if any."""

    ours: Timing
    bare: Timing
    parts: dict[str, float]
    bare_parts: dict[str, float]
    memory: int | None = None


def rows_of_way(found: dict[str, Any], name: str, device: torch.device) -> list[Row]:
    """Return the rows of one way at one size; on a GPU those of the second and later ones compare it with the first."""
    size = f"{found['batch']} x {found['size'][0]} x {found['size'][1]}"
    way, m = found["ways"][name]
    rows = [
        Row(f"step, {size}, {name}", str(m.ours), f"bare: {m.bare}", m.ours.median / m.bare.median, "less", way.bar)
    ]
    if m.parts:
        rows.append(_rest_row(way, m))
    least = bound(found, way.precision)
    what = f"  against the arithmetic bound, {name}"
    rows.append(Row(what, str(m.ours), f"{1e3 * least:.1f} ms", m.ours.median / least, "less"))
    first = next(iter(found["ways"]))
    return [*rows, *_gpu_rows(found, first, name, size)] if device.type == "cuda" and name != first else rows


def _rest_row(way: Way, m: Measured) -> Row:
    extra = m.parts["rest"] + max(0.0, m.parts["terms"] - m.bare_parts["terms"])
    whole = sum(m.parts.values())
    what = f"  of it trainer, logging, terms beyond cross-entropy, {way.name}"
    bar = REST if way.bar == PLAIN else None
    return Row(what, f"{1e3 * extra:.1f} ms", f"{1e3 * whole:.1f} ms", extra / whole, "less", bar)


def _gpu_rows(found: dict[str, Any], first: str, name: str, size: str) -> list[Row]:
    (_, plain), (_, fast) = found["ways"][first], found["ways"][name]
    done, most = found["flops"] / fast.ours.median, found["rates"]["bfloat16"]
    speed = plain.ours.median / fast.ours.median
    return [
        Row(f"{name} against {first}, {size}", str(fast.ours), str(plain.ours), speed, "more", GPU_SPEED),
        Row(
            f"  share of the bfloat16 matrix rate, {name}",
            f"{done / 1e12:.0f} T/s",
            f"{most / 1e12:.0f} T/s",
            done / most,
            "more",
            GPU_RATE,
        ),
        Row(
            f"  peak memory, {name}",
            f"{fast.memory / 1e9:.1f} GB",
            f"{plain.memory / 1e9:.1f} GB",
            fast.memory / plain.memory,
            "less",
            GPU_MEMORY,
        ),
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
    return {**{key: value for key, value in found.items() if key != "data"}, "ways": measured}
