"""Which of the measured networks keep a frame rate, and in which way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from idd_seg.benchmarks.networks import Found
from idd_seg.errors import ConfigError
from idd_seg.plotting.tables import percent


@dataclass(frozen=True)
class Keeps:
    """A network in its fastest way.

    Attributes:
        rate: pictures a second of the slower calls, three of four of which are faster.
        miou: 0 to 1 of its run; None without one.
    """

    name: str
    way: str
    rate: float
    miou: float | None
    parameters: int


def check_rate(fps: Any) -> float | None:
    """Return the frame rate that is asked for.

    Raises:
        ConfigError: if it is no number above 0.
    """
    if fps is None:
        return None
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        raise ConfigError(f"fps must be a number of pictures a second above 0, or null, got '{fps}'")
    return float(fps)


def fastest(found: Sequence[Found], batch: int) -> list[Keeps]:
    """Return each network that was measured in its fastest way, the best first.

    By mIoU where a run has one, and those before the others; then by parameters, which say the most where no mIoU does.
    """
    rows = []
    for each in found:
        if each.times:
            way, t = min(each.times.items(), key=lambda item: item[1].high)
            rows.append(Keeps(each.name, way, batch / t.high, each.miou, each.parameters))
    return sorted(rows, key=lambda row: (row.miou is None, -(row.miou or 0), -row.parameters))


def lines_of(rows: Sequence[Keeps], fps: float) -> list[str]:
    """Say which networks keep a frame rate, or which comes nearest to it."""
    kept = [row for row in rows if row.rate >= fps]
    if not rows:
        return [f"{fps:g} pictures a second: nothing was measured"]
    if not kept:
        near = max(rows, key=lambda row: row.rate)
        return [f"{fps:g} pictures a second: kept by none; the fastest is {_said(near)}"]
    return [f"{fps:g} pictures a second are kept by, the best first:", *(f"  {_said(row)}" for row in kept)]


def _said(row: Keeps) -> str:
    judged = "" if row.miou is None else f", mIoU {percent(row.miou)} %"
    return f"{row.name} ({row.way}): {row.rate:.3g} a second{judged}, {row.parameters / 1e6:.2f} M parameters"
