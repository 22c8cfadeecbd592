"""The runs of a study: each a process and a folder of its own, which is left as it is once it is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from idd_seg.errors import UserError
from idd_seg.run_folder import write_json

COST = "cost.json"


@dataclass(frozen=True)
class Result:
    """What a run has reached.

    Attributes:
        miou: of the last step on held-out images, 0 to 1.
        seconds: of training and validation; of all parts, if the run was stopped in between.
        memory: bytes that its process had in memory at most.
        teacher_miou: of the teacher's own run on the same images; None without a teacher that was trained here.
    """

    miou: float
    iou: Mapping[str, float | None]
    seconds: float
    memory: int
    commit: str | None
    teacher_miou: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def train(folder: Path, options: Sequence[str], title: str) -> Result:
    """Train as the options say, unless the folder holds the finished run already.

    Raises:
        UserError: if the run fails; its output is in `FOLDER.log`.
        KeyboardInterrupt: if it was interrupted.
    """
    if not (folder / "metrics.json").is_file() or not (folder / COST).is_file():
        _run(folder, options, title)
    return read(folder)


def _run(folder: Path, options: Sequence[str], title: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    words = [sys.executable, "-m", "idd_seg.train", *options, f"hydra.run.dir={folder}", "resume=auto"]
    print(f"{title} ...", flush=True)
    # Hydra was asked for stack traces in this process, whose command line handles them; a run says what is wrong.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    with log.open("ab") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.wait()  # it was interrupted too, and writes its checkpoint
            raise
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code in (130, -2):
        raise KeyboardInterrupt
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{title}: the run failed ({' '.join(last)}); all it said is in '{log}'")
    unit = 1 if sys.platform == "darwin" else 1024
    write_json(folder / COST, {"peak_memory": used.ru_maxrss * unit})


def read(folder: Path) -> Result:
    """Read a finished run."""
    metrics, about, cost = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", "run.json", COST)
    )
    last = metrics["last"]
    git = about.get("git") or {}
    teacher = _teacher_miou(metrics["teacher"])
    return Result(last["miou"], last["iou"], metrics["seconds"], cost["peak_memory"], git.get("commit"), teacher)


def _teacher_miou(source: Mapping[str, str] | None) -> float | None:
    """Return what the teacher's run reached, if its checkpoint lies in a run folder."""
    path = Path(source["path"]).parents[1] / "metrics.json" if source else None
    if path is None or not path.is_file():
        return None
    return float(json.loads(path.read_text(encoding="utf-8"))["last"]["miou"])
