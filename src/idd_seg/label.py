"""`python -m idd_seg.label checkpoint=PATH input=PATH`: masks of photographs, for a training that wants labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import check_whole, number


def main(cfg: DictConfig) -> None:
    """Write a mask of each photograph, the list of both, and a page of the masks that are least certain.

    Raises:
        UserError: at the end, if some photographs failed; the masks of the others are there.
    """
    from idd_seg.errors import ConfigError, UserError
    from idd_seg.prediction.folder import Pace, write_failures
    from idd_seg.prediction.inputs import find_jobs
    from idd_seg.prediction.label_all import draw_least_certain, label_all, refuse_videos
    from idd_seg.prediction.label_folder import MASKS, LabelFolder, root_of
    from idd_seg.prediction.labeller import labeller
    from idd_seg.runs.provenance import describe_run

    pace = Pace(cfg.batch_size, cfg.workers, cfg.max_pixels, cfg.whole_limit)
    check_whole(cfg, "samples", 0)
    if not number(0, 1)(cfg.confidence):
        raise ConfigError(f"confidence must be a number from 0 to 1, got '{cfg.confidence}'")
    for key in ("keep_ending", "overwrite"):
        if not isinstance(cfg[key], bool):
            raise ConfigError(f"{key} must be true or false, got '{cfg[key]}'")
    output = Path(str(cfg.output)).expanduser()
    jobs = find_jobs(str(cfg.input), output, cfg.keep_ending, results=[MASKS])
    refuse_videos(jobs)
    root = root_of(jobs, output, cfg.root)
    chosen = labeller(cfg, pace.whole_limit)
    pixels = chosen.model.card.pixels
    folder = LabelFolder(output, chosen.values, chosen.settings, overwrite=cfg.overwrite, pixels=pixels)
    describe_run(cfg, Path(cfg.run_dir))
    show = partial(chosen.model.show_confident, confidence=cfg.confidence, inference=chosen.inference)
    tally = label_all(jobs, show, folder, pace, pixels)
    share = 100 * tally.busy / tally.wall if tally.wall else 0.0
    print(f"{tally.done} photographs in {tally.wall:.1f} s; network busy {share:.0f} %")
    listed = folder.finish(jobs, root)
    print(f"masks: {output / MASKS}; confident: {100 * folder.share(jobs):.1f} % of the pixels")
    if cfg.samples and (sheet := draw_least_certain(jobs, folder, cfg.samples, pixels)):
        print(f"least certain: {sheet}")
    print(f"to train on them: data=folder {chosen.values.options(root, output)} data.images.train={listed.absolute()}")
    if failures := write_failures(tally, output):
        reasons = "\n  ".join(reason for _, reason in tally.failed[:20])
        raise UserError(
            f"{len(tally.failed)} of {len(jobs)} photographs failed, the others are done; "
            f"'{failures}' has them all:\n  {reasons}"
        )


if __name__ == "__main__":
    command_line.run(main, "label")
