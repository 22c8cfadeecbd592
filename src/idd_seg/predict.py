"""`python -m idd_seg.predict checkpoint=PATH input=PATH`: class ids of pictures and videos."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import words_of


def main(cfg: DictConfig) -> None:
    """Predict what `cfg.input` names and write the results; files that can't be read are left out and said at the end.

    Raises:
        UserError: at the end, if some files failed; the results of the others are there.
    """
    from idd_seg.config import instantiate
    from idd_seg.errors import ConfigError, UserError
    from idd_seg.library import load
    from idd_seg.prediction.folder import Pace, predict_all, write_failures
    from idd_seg.prediction.inputs import find_jobs
    from idd_seg.prediction.results import Results
    from idd_seg.runs.provenance import describe_run

    output, run_dir = Path(str(cfg.output)).expanduser(), Path(cfg.run_dir)
    pace = Pace(cfg.batch_size, cfg.workers, cfg.max_pixels, cfg.whole_limit)
    for key in ("save_frames", "keep_ending"):
        if not isinstance(cfg[key], bool):
            raise ConfigError(f"{key} must be true or false, got '{cfg[key]}'")
    save = cfg.save if isinstance(cfg.save, str) else words_of(cfg, "save")
    jobs = find_jobs(str(cfg.input), output, cfg.keep_ending)
    model = load(cfg.checkpoint, cfg.device, cfg.precision)
    model.whole_limit = pace.whole_limit
    inference = instantiate.make_inference(cfg.eval, model.saved)
    results = Results(output, model, save, cfg.opacity, cfg.save_frames)
    results.check(jobs)
    describe_run(cfg, run_dir)
    tally = predict_all(jobs, partial(model.show, inference=inference), results, pace)
    share = 100 * tally.busy / tally.wall if tally.wall else 0.0
    print(f"{tally.done} of {len(jobs)} files in {tally.wall:.1f} s; network busy {share:.0f} %")
    print(f"results: {output}")
    if failures := write_failures(tally, output):
        reasons = "\n  ".join(reason for _, reason in tally.failed[:20])
        raise UserError(
            f"{len(tally.failed)} of {len(jobs)} files failed, the others are done; "
            f"'{failures}' has them all:\n  {reasons}"
        )


if __name__ == "__main__":
    command_line.run(main, "predict")
