"""One run folder, read: what it was, how far it came, and notes on what is broken or missing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idd_seg.reporting import options
from idd_seg.reporting.curves import Curve, read_curves, typical
from idd_seg.reporting.files import UnreadableError, number, part, read_list, read_mapping, text_of
from idd_seg.runs.lock import is_locked

STATES = ("running", "finished", "failed", "interrupted", "pruned", "lost")
CLASSES = 1000


@dataclass(frozen=True)
class Score:
    """mIoU and the IoU of each class that has one, in 0..1, after `step` optimizer steps."""

    miou: float
    step: float | None
    iou: dict[str, float]


@dataclass
class FoundRun:
    """All that is known of a run; what could not be read is None or empty, and `notes` says why."""

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    options: options.Flat = field(default_factory=dict)
    twin_key: str | None = None
    plain: bool = False
    seed: int | None = None
    state: str = "half-written"
    error: str = ""
    notes: list[str] = field(default_factory=list)
    command: str = ""
    changed: list[str] = field(default_factory=list)
    last: Score | None = None
    best: Score | None = None
    parameters: float | None = None
    seconds: float | None = None
    images_per_s: float | None = None
    teacher: tuple[str, str] | None = None
    curves: dict[str, Curve] = field(default_factory=dict)


def read_run(folder: Path, name: str) -> FoundRun:
    """Read a run folder. Never raises for what is in it."""
    run = FoundRun(folder, text_of(name))
    config = _mapping(run, "config.yaml")
    if config:
        flat = options.flatten(config)
        run.config, run.options = config, options.described(config, flat)
        run.twin_key, run.plain = options.twin_key(flat), options.is_plain(config)
    described = _mapping(run, "run.json")
    metrics = _mapping(run, "metrics.json")
    run.curves, notes = read_curves(folder / "metrics.csv")
    run.notes += notes
    run.images_per_s = typical(run.curves.get("train/images_per_s"))
    run.seed = next((s for s in (_seed(m) for m in (described, metrics, config)) if s is not None), None)
    if ", first " in (judged := text_of(metrics.get("split", ""), 80)):
        run.notes.append(f"its scores are of a part of the held-out pictures: {judged}")
    run.last, run.best = score_of(metrics.get("last")), score_of(metrics.get("best"))
    run.parameters, run.seconds = number(metrics.get("parameters")), number(metrics.get("seconds"))
    if teacher := part(metrics, "teacher"):
        run.teacher = (text_of(teacher.get("path", ""), 4000), text_of(teacher.get("sha256", "")))
    _set_state(run, described)
    _set_command(run, described)
    return run


def _mapping(run: FoundRun, name: str) -> dict[str, Any]:
    try:
        return read_mapping(run.folder / name)
    except UnreadableError as error:
        run.notes.append(str(error))
        return {}


def _seed(content: dict[str, Any]) -> int | None:
    seed = content.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**53 else None


def score_of(content: object) -> Score | None:
    if not isinstance(content, dict) or (miou := number(content.get("miou"))) is None:
        return None
    iou = {text_of(k, 80): v for k, value in part(content, "iou").items() if (v := number(value)) is not None}
    return Score(miou, number(content.get("step")), dict(list(iou.items())[:CLASSES]))


def _set_state(run: FoundRun, described: dict[str, Any]) -> None:
    state = described.get("state")
    run.error = text_of(described["error"], 2000) if described.get("error") else ""
    if state == "running" and is_locked(run.folder) is False:
        run.state = "lost"  # it was killed, and could not say so
    elif state in STATES:
        run.state = str(state)
    elif described and run.last is not None:
        # Written by a version that did not note the state: metrics.json is the last thing that a run writes.
        run.state = "finished"
    if run.state == "finished" and run.last is None:
        run.state = "half-written"


def _set_command(run: FoundRun, described: dict[str, Any]) -> None:
    command = described.get("command")
    words = [str(word) for word in command[1:]] if isinstance(command, list) else []
    swept = {"-m", "--multirun"} & set(words)
    own = [str(word) for word in read_list(run.folder / ".hydra" / "overrides.yaml")]
    if swept and not own:
        return
    words = own if swept else words
    # A repetition gets a folder of its own.
    words = [word for word in words if not word.startswith(("hydra.run.dir=", "hydra.sweep", "resume="))]
    run.changed = [text_of(word.lstrip("+~").split("=")[0]) for word in words]
    if run.folder.resolve().parent.name == "teachers" and not (run.folder / ".hydra").exists():
        run.notes.append("a teacher, trained by the way: the command is that of the run that needed it")
    if isinstance(command, list):
        run.command = text_of(shlex.join(["python", "-m", "idd_seg.train", *words]), 20_000)
