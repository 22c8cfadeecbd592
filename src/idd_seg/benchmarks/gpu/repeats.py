"""The same training twice, and stopped in between: on a GPU, too, it must end with the same bits."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from idd_seg.benchmarks.gpu.bench import Bench, Place
from idd_seg.benchmarks.gpu.commands import CommandError, OutOfTimeError, last_lines
from idd_seg.benchmarks.gpu.weights import digest_of, last_checkpoint

STEPS, TINY_STEPS = 60, 20
COMMON = (
    *("data=shapes", "loss=[ce,kd,idd,position,cwd]", "deterministic=true", "pretrained=false"),
    *("teacher.checkpoint=auto", "teacher.training.pretrained=false", "callbacks.last.every_n_steps=10"),
)
FULL = ("student=r18", "teacher=r101", "teacher.training.max_steps=10", "data.val_length=16")
TINY = (
    *("data.size=[32,32]", "data.train_length=16", "data.val_length=4", "data.batch_size=4", "data.num_workers=0"),
    *("teacher.training.max_steps=2", "callbacks.sample_gallery.count=1", "callbacks.sample_gallery.scored=0"),
)
STOPPED = 128 + signal.SIGTERM
ROWS = 3  # of the log after which the run is stopped


def options(place: Place, *, fast: bool) -> list[str]:
    """Return the options of these trainings.

    Args:
        fast: with the settings of `trainer=gpu`, but for cuDNN's choice of algorithms by their times.
    """
    steps = TINY_STEPS if place.tiny else STEPS
    device = ["trainer=gpu", "trainer.benchmark=false"] if fast else [f"trainer.accelerator={place.accelerator}"]
    logged = 1 if place.tiny else 2
    lengths = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps // 2}"]
    return [
        *(*COMMON, *(TINY if place.tiny else FULL), *device, *lengths),
        *(f"trainer.log_every_n_steps={logged}", f"seed={place.seed}"),
    ]


def run_determinism(bench: Bench) -> None:
    """Train twice as it is, then twice with the fast settings, each time with a teacher of its own."""
    ways = {"float32": False} if bench.place.device == "cpu" else {"float32": False, "fast": True}
    for name, fast in ways.items():
        found = [_trained(bench, first_run(bench.place, name, number), fast=fast) for number in (1, 2)]
        bench.record.note(**{name: {"sha256": found, "same": found[0] == found[1]}})
        if found[0] != found[1]:
            raise CommandError(f"two runs with deterministic=true differ ({name})")


def first_run(place: Place, name: str = "float32", number: int = 1) -> Path:
    """Return the folder of a training of this part."""
    return place.folder("determinism") / f"{name}_{number}"


def _trained(bench: Bench, folder: Path, *, fast: bool) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    words = [*options(bench.place, fast=fast), f"hydra.run.dir={folder}"]
    bench.run("idd_seg.train", *words, env=_cache(folder))
    return digest_of(last_checkpoint(folder))


def _cache(folder: Path) -> dict[str, str]:
    return {"IDD_SEG_CACHE": str(folder.with_name(f"{folder.name}_cache"))}


def run_resume(bench: Bench) -> None:
    """Stop a training by SIGTERM, let it go on, and compare it with one that was not stopped."""
    whole = first_run(bench.place)
    if not (whole / "metrics.json").is_file():
        _trained(bench, whole, fast=False)
    expected = digest_of(last_checkpoint(whole))
    folder = bench.folder("stopped")
    shutil.rmtree(folder, ignore_errors=True)
    words = [*options(bench.place, fast=False), f"hydra.run.dir={folder}", "resume=auto"]
    at = _stopped(bench, folder, words, _cache(whole))
    bench.record.note(stopped_at_step=at, steps=TINY_STEPS if bench.place.tiny else STEPS)
    bench.run("idd_seg.train", *words, env=_cache(whole))
    found = digest_of(last_checkpoint(folder))
    bench.record.note(sha256=[expected, found], same=expected == found)
    if expected != found:
        raise CommandError("the run that was stopped ended with other weights than the one that was not")


def _stopped(bench: Bench, folder: Path, words: list[str], env: dict[str, str]) -> int:
    """Start a run, stop it once its log has some rows, and return the step that it has kept."""
    with bench.running("idd_seg.train", *words, env=env) as command:
        log = folder / "metrics.csv"
        while command.process.poll() is None:
            if log.is_file() and len(log.read_bytes().splitlines()) > ROWS:
                command.process.send_signal(signal.SIGTERM)
                break
            if bench.left <= 0:
                raise OutOfTimeError("the run had not begun in the part's time", last_lines(command.log))
            time.sleep(0.02)
        code = command.wait(bench.left)
        lines = last_lines(command.log)
    if code != STOPPED:
        raise CommandError(f"the run was to end with exit code {STOPPED} after SIGTERM, and had {code}", lines)
    return int(last_checkpoint(folder)["global_step"])
