"""What a teacher reached on the same pictures, as its own run has noted it: a column beside the student's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idd_seg.metrics.confusion import Scores

MOST = 16 * 2**20  # bytes of a metrics.json


def scores_of(source: Mapping[str, Any], split: str, class_names: Sequence[str]) -> Scores | None:
    """Return the scores in `metrics.json` beside a teacher's checkpoint; None where they are not comparable.

    Comparable are scores on the split of this name, by classes of these names. A file that is missing or broken is no
    error: the scores are shown, and nothing is computed from them.

    Args:
        source: `path` of the checkpoint, `RUN/checkpoints/last.ckpt` or `best.ckpt`.
    """
    path = Path(str(source.get("path", "")))
    metrics = path.parent.parent / "metrics.json"
    try:
        if not metrics.is_file() or metrics.stat().st_size > MOST:
            return None
        content = json.loads(metrics.read_text(encoding="utf-8"))
        found = content["best" if path.stem == "best" else "last"]
        if content["split"] != split or list(found["iou"]) != list(class_names):
            return None
        values = [_number(found["iou"][name]) for name in class_names]
        return Scores(_number(found["miou"]), values, _number(found["pixel_accuracy"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _number(value: Any) -> float:
    """Return a score; NaN of a class that never occurs, which JSON has as null."""
    return float("nan") if value is None else float(value)
