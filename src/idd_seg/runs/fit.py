"""One training run, from its parts to its folder."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from idd_seg.callbacks.checkpoint import BEST, LAST, save_finally
from idd_seg.callbacks.graceful_stop import TIME
from idd_seg.checkpoints.reader import Saved, latest_whole, previous_of
from idd_seg.data.pipeline.worker_errors import explained
from idd_seg.distillation.module import Distiller
from idd_seg.distributed.timeouts import ranks_explained
from idd_seg.errors import CheckpointError, TimeUp
from idd_seg.loggers.factory import close_wandb
from idd_seg.models.segmenter import count_parameters
from idd_seg.plotting.tables import class_table
from idd_seg.runs.assemble import Run
from idd_seg.runs.provenance import write_json
from idd_seg.runs.teacher_scores import scores_of


def fit(run: Run) -> float:
    """Train, and fill the run's folder; return the best mIoU on held-out images.

    Raises:
        UserError: for what is wrong with data or files, and could not be known before.
    """
    try:
        _train(run)
        _validate_the_end(run)
    finally:
        if (folder := close_wandb()) and run.trainer.is_global_zero:
            print(f"wandb: offline; to upload: wandb sync {folder}")
    return _finish(run)


def _train(run: Run) -> None:
    """Train, from the checkpoint `run.last` on if it is there, or from the one before it if that is damaged.

    Raises:
        KeyboardInterrupt, SystemExit: after a signal; Lightning ends the process by itself at ctrl-C, where a sweep or
            a lock must see the stop.
        CheckpointError: if checkpoints are there and none can be used, or if they belong to another teacher.
        DataError: for loader processes that were killed.
        LostRankError: if another process of the run does not come to where this one waits.
    """
    # Read by our own reader first: it says what is wrong with a file in words of the user.
    trainer, stop = run.trainer, run.stop
    saved = latest_whole(run.last)
    if saved is not None:
        _refuse_another_teacher(saved, run.module)
        if trainer.is_global_zero:
            print(f"going on from {saved.path}")
    try:
        with explained(), ranks_explained(trainer.world_size):
            trainer.fit(run.module, datamodule=run.data, ckpt_path=None if saved is None else saved.path)
    except SIGTERMException:
        if stop.number == TIME:
            raise TimeUp(
                f"stopped at step {trainer.global_step} of {trainer.max_steps}, since trainer.max_time is up; "
                f"'{run.last}' is kept, and the same command with resume=auto goes on from there"
            ) from None
        if stop.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + (stop.number or signal.SIGTERM)) from None
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        stop.release(trainer)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _refuse_another_teacher(saved: Saved, module: Distiller) -> None:
    before = saved.metadata.get("teacher") or {}
    now = {} if module.teacher is None else module.teacher.source
    if before.get("sha256") != now.get("sha256"):
        raise CheckpointError(
            f"'{saved.path}' was distilled from '{before.get('path')}', and the file that is there now, "
            f"'{now.get('path')}', is another one; put the teacher back, or train anew with resume=never"
        )


def _validate_the_end(run: Run) -> None:
    """Validate and keep the last step, where the interval of validations did not end on it."""
    trainer, module, folder = run.trainer, run.module, run.last.parent
    step = trainer.global_step
    if step not in module.validated:
        save_finally(trainer, run.last)  # a stop in what follows costs no step
        with explained(), ranks_explained(trainer.world_size):
            trainer.validate(module, datamodule=run.data, verbose=False)
        for name in [LAST, BEST] if _best_step(module) == step else [LAST]:
            save_finally(trainer, folder / f"{name}.ckpt")
    if trainer.is_global_zero:
        previous_of(run.last).unlink(missing_ok=True)


def _best_step(module: Distiller) -> int:
    """Return the first of the steps with the highest mIoU, as `best.ckpt` has it."""
    return max(module.validated, key=lambda step: module.validated[step].miou)


def _finish(run: Run) -> float:
    """Write `metrics.json` and what the terms keep, and show the classes of the last validation."""
    module, data = run.module, run.data
    best_step = _best_step(module)
    last_step = max(module.validated)
    best, last = module.validated[best_step], module.validated[last_step]
    now = run.clock.now
    content: dict[str, Any] = {
        "split": data.judged,
        "last": {"step": last_step, **last.as_dict(data.class_names)},
        "best": {"step": best_step, **best.as_dict(data.class_names)},
        "parameters": count_parameters(module.student),
        "seconds": round(now.seconds, 1),
        "cpu_seconds": round(now.cpu_seconds, 1),
        "course": [
            {"step": step, "miou": module.validated[step].miou, **asdict(moment)}
            for step, moment in sorted(run.clock.validated.items())
            if step in module.validated
        ],
        "seed": module.seed,
        "teacher": None if module.teacher is None else module.teacher.source,
    }
    if module.trainer.is_global_zero:
        write_json(run.folder / "metrics.json", content)
        for term in module.each_term().values():
            term.keep(run.folder)
        teacher = None if module.teacher is None else scores_of(module.teacher.source, data.judged, data.class_names)
        columns = {"network": last} if teacher is None else {"student": last, "teacher": teacher}
        class_table(f"{run.name}, {data.judged}, step {last_step}", data.class_names, columns)
        print(f"run folder: {run.folder}")
    return best.miou
