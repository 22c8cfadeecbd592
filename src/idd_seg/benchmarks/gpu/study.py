"""A short study of CamVid at its full size, whose steps are fitted to the time that is left."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from idd_seg.benchmarks.gpu.bench import Bench, LeftOutError
from idd_seg.benchmarks.gpu.commands import CommandError
from idd_seg.benchmarks.gpu.lengths import LEAST, VALIDATIONS, Costs, lengths

DATA = "IDD_SEG_CAMVID"
WEIGHTS = {"student": "IDD_SEG_R18", "teacher": "IDD_SEG_R101"}
METHODS = ("twin", "default", "kd+idd+position")  # of conf/study/camvid_full.yaml
TRIAL, TINY_TRIAL = 40, 2  # steps
# For a look at whether it runs: small networks and pictures, on any device.
TINY = (
    *("experiment=camvid_full", "student=small", "teacher=medium", "data.augment.crop=[32,32]", "data.batch_size=2"),
    *("data.num_workers=0", "data.image_scale=1", "callbacks.sample_gallery.count=1"),
)


def run_study(bench: Bench) -> None:
    """Try the costliest method for some steps, and run the study with as many as fit.

    Raises:
        LeftOutError: without the data set, or where too few steps fit.
    """
    data = os.environ.get(DATA)
    if not data or not Path(data).is_dir():
        raise LeftOutError(f"{DATA} names no folder with CamVid")
    given = {name: os.environ.get(variable) for name, variable in WEIGHTS.items()}
    bench.record.note(
        pretrained={name: "ImageNet, from a file" if path else "from scratch" for name, path in given.items()}
    )
    costs = _tried(bench)
    bench.record.note(costs=vars(costs))
    chosen = (TINY_TRIAL, TINY_TRIAL) if bench.place.tiny else lengths(bench.left, len(METHODS), costs)
    if chosen is None:
        raise LeftOutError(
            f"fewer than {LEAST} steps of teacher and students fit into the {bench.left:.0f} seconds left"
        )
    _run(bench, *chosen)


def _common(bench: Bench) -> list[str]:
    if bench.place.tiny:
        return [*TINY, f"trainer.accelerator={bench.place.accelerator}"]
    return ["experiment=camvid_full", "trainer=gpu" if bench.place.device == "cuda" else "trainer.accelerator=cpu"]


def _environment(bench: Bench) -> dict[str, str]:
    return {"IDD_SEG_CACHE": str(bench.folder("cache"))}


def _tried(bench: Bench) -> Costs:
    """Train teacher and student for some steps, and return what they cost."""
    steps = TINY_TRIAL if bench.place.tiny else TRIAL
    folder = bench.folder("trial")
    shutil.rmtree(bench.folder(), ignore_errors=True)
    words = [*_common(bench), f"trainer.max_steps={steps}", f"teacher.training.max_steps={steps}"]
    words += [f"trainer.val_check_interval={steps}", f"trainer.log_every_n_steps={max(1, steps // 4)}"]
    began = time.monotonic()
    bench.run("idd_seg.train", *words, f"hydra.run.dir={folder}", env=_environment(bench))
    whole = time.monotonic() - began
    (teacher,) = (path.parent for path in bench.folder("cache").glob("teachers/*/metrics.csv"))
    return costs_of(teacher, folder, steps, whole)


def costs_of(teacher: Path, student: Path, steps: int, whole: float) -> Costs:
    """Return the costs that two runs of some steps in one process tell.

    Args:
        teacher, student: folders of the runs.
        whole: seconds of the process.
    """
    a_step = [_seconds_a_step(run) for run in (teacher, student)]
    fitted = [
        float(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["seconds"]) for run in (teacher, student)
    ]
    # What the trainer took beside its steps: the validation, and the first steps, which are slower.
    beside = [max(0.1, seconds - steps * each) for seconds, each in zip(fitted, a_step, strict=True)]
    return Costs(a_step[0], a_step[1], max(beside), max(0.0, whole - sum(fitted)))


def _seconds_a_step(run: Path) -> float:
    """Return the seconds of a step by the last throughput that a run has logged."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rates = [float(row["train/images_per_s"]) for row in csv.DictReader(file) if row.get("train/images_per_s")]
    batch = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["batch_size"]
    if not rates:
        raise CommandError(f"the trial run '{run.name}' has logged no train/images_per_s")
    return float(batch) / rates[-1]


def _run(bench: Bench, teacher: int, student: int) -> None:
    """Run the study, and keep what is there of it also where it is ended early."""
    kept = bench.folder("results")
    every = max(1, student // VALIDATIONS)
    bench.record.note(steps=student, teacher_steps=teacher)
    words = [
        f"study.steps={student}",
        f"study.teacher_steps={teacher}",
        f"study.every={every}",
        f"study.seeds=[{bench.place.seed}]",
    ]
    if bench.place.tiny:
        common = [*_common(bench), f"trainer.max_steps={student}", f"teacher.training.max_steps={teacher}"]
        words += [f"study.common={json.dumps(common)}", 'only=["twin"]']
    elif bench.place.device == "cpu":
        raise LeftOutError("on a CPU this study takes days; study=camvid_quarter is made for one")
    words += ["study=camvid_full", "probe_steps=0", f"folder={bench.folder('runs')}", f"results={kept}"]
    try:
        bench.run("idd_seg.study", *words, env=_environment(bench))
    finally:
        bench.record.note(**results_of(kept))


def results_of(kept: Path) -> dict[str, Any]:
    """Return what a study has kept: by method the mIoU (0 to 1), seconds and steps, and the teacher's mIoU."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(kept.glob("final-*.json"))]
    keys = ("miou", "seconds", "steps", "seed", "weights")
    teacher = next((one["teacher_miou"] for one in found if one.get("teacher_miou") is not None), None)
    return {"methods": {one["method"]: {key: one.get(key) for key in keys} for one in found}, "teacher_miou": teacher}
