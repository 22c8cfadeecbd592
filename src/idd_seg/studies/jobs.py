"""The runs of a study: each a process and a folder of its own, which is left as it is once it is finished."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from idd_seg.errors import UserError
from idd_seg.runs.provenance import write_json
from idd_seg.studies.plan import WALL

COST = "cost.json"


@dataclass(frozen=True)
class Result:
    """What a run has reached.

    Attributes:
        miou: of the last step on held-out images, 0 to 1.
        seconds: of training and validation; of all parts, if the run was stopped in between.
        memory: bytes that its process had in memory at most.
        teacher_miou: of the teacher's own run on the same images; None without a teacher that was trained here.
        steps: optimizer steps; None of a run of before that was not counted.
        cpu_seconds: of the processor in the training process; None likewise.
        course: of each validation its step, mIoU, seconds and cpu_seconds; empty likewise.
    """

    miou: float
    iou: Mapping[str, float | None]
    seconds: float
    memory: int
    commit: str | None
    teacher_miou: float | None
    steps: int | None = None
    cpu_seconds: float | None = None
    course: Sequence[Mapping[str, float]] = ()

    def time(self, clock: str) -> float | None:
        """Return how long it took by a clock of a plan; None where that is not known."""
        return self.seconds if clock == WALL else self.cpu_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Result:
        """Return what `as_dict` has written, perhaps beside other values."""
        return cls(**{field.name: content[field.name] for field in fields(cls) if field.name in content})


@dataclass(frozen=True)
class Job:
    """A run: its folder, the options of its training, and what it is called."""

    folder: Path
    options: Sequence[str]
    title: str

    @property
    def finished(self) -> bool:
        """Tell whether the folder holds the finished run; one with other options is left to the training to refuse."""
        cost = self.folder / COST
        if not (self.folder / "metrics.json").is_file() or not cost.is_file():
            return False
        return bool(json.loads(cost.read_text(encoding="utf-8")).get("options") == list(self.options))


class Runner:
    """Runs jobs, several at once.

    Args:
        at_once: number of jobs that run at the same time.
        devices: GPUs, among which the jobs are spread; none leaves them what there is.
    """

    def __init__(self, at_once: int, devices: Sequence[str] = ()) -> None:
        self.at_once = at_once
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()
        self.ended = False
        self.places: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for place in range(at_once):
            self.places.put(_environment(place, at_once, devices))

    def run(self, jobs: Sequence[Job], then: Callable[[int, Result], None]) -> None:
        """Run the jobs that are not finished, and hand each result over as soon as it is there.

        Args:
            then: called with a job's place in `jobs` and its result, one at a time.

        Raises:
            UserError: if a run fails; its output is in `FOLDER.log`. The others are asked to stop, and go on later.
            KeyboardInterrupt: if a run was interrupted.
        """
        with ThreadPoolExecutor(self.at_once) as pool, self._stopping():
            waiting: dict[Future[Result], int] = {pool.submit(self._do, job): i for i, job in enumerate(jobs)}
            try:
                while waiting:
                    # Not for ever, so that this thread sees signals.
                    done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=waiting.__getitem__):
                        then(waiting.pop(future), future.result())
            finally:
                for future in waiting:
                    future.cancel()

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Ask what still runs to stop where this ends early; a run keeps its state then."""
        try:
            yield
        except BaseException:
            with self.lock:
                self.ended = True
                for process in self.running.values():
                    process.send_signal(signal.SIGTERM)
            raise

    def _do(self, job: Job) -> Result:
        if not job.finished:
            place = self.places.get()
            try:
                self._train(job, place)
            finally:
                self.places.put(place)
        return read(job.folder)

    def _train(self, job: Job, place: Mapping[str, str]) -> None:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        log = job.folder.with_name(f"{job.folder.name}.log")
        words = [sys.executable, "-m", "idd_seg.train", *job.options, f"hydra.run.dir={job.folder}", "resume=auto"]
        # Hydra was asked for stack traces in this process, whose command line handles them; a run says what is wrong.
        environment = {key: value for key, value in {**os.environ, **place}.items() if key != "HYDRA_FULL_ERROR"}
        with log.open("ab") as file:
            with self.lock:
                if self.ended:
                    raise KeyboardInterrupt
                # In one piece with its end of line: another thread prints results.
                print(f"{job.title} ...\n", end="", flush=True)
                # A session of its own: a terminal's ctrl-C would reach it besides the signal that it gets from here.
                process = subprocess.Popen(
                    words, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
                self.running[process.pid] = process
            _, status, used = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with self.lock:
            process.returncode = code
            del self.running[process.pid]
        if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{job.title}: the run failed ({' '.join(last)}); all it said is in '{log}'")
        unit = 1 if sys.platform == "darwin" else 1024
        write_json(job.folder / COST, {"peak_memory": used.ru_maxrss * unit, "options": list(job.options)})


def _environment(place: int, at_once: int, devices: Sequence[str]) -> dict[str, str]:
    """Return what the environment of the jobs at one place has besides: a GPU, or a share of the cores."""
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if at_once > 1 else {}
    if at_once == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}


def read(folder: Path) -> Result:
    """Read a finished run."""
    metrics, about, cost = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", "run.json", COST)
    )
    last = metrics["last"]
    git = about.get("git") or {}
    teacher = _teacher_miou(metrics["teacher"])
    known = (last["miou"], last["iou"], metrics["seconds"], cost["peak_memory"], git.get("commit"), teacher)
    return Result(*known, last.get("step"), metrics.get("cpu_seconds"), metrics.get("course", ()))


def _teacher_miou(source: Mapping[str, str] | None) -> float | None:
    """Return what the teacher's run reached, if its checkpoint lies in a run folder."""
    path = Path(source["path"]).parents[1] / "metrics.json" if source else None
    if path is None or not path.is_file():
        return None
    return float(json.loads(path.read_text(encoding="utf-8"))["last"]["miou"])
