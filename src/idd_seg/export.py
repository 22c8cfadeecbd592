"""`python -m idd_seg.export checkpoint=PATH`: the student of a run as files that ship."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import words_of


def main(cfg: DictConfig) -> None:
    """Export the student of `cfg.checkpoint` into the folder `cfg.output`, which appears when all of it is right."""
    import torch

    from idd_seg.config import restore
    from idd_seg.errors import ConfigError
    from idd_seg.exporting import calibration, hub, speed
    from idd_seg.exporting.export import Export, check_target
    from idd_seg.exporting.plan import ExportPlan
    from idd_seg.exporting.summary import table_of
    from idd_seg.library import load
    from idd_seg.runs.provenance import describe_run

    plan = ExportPlan(
        cfg.formats if isinstance(cfg.formats, str) else words_of(cfg, "formats"),
        cfg.winograd,
        cfg.fp16,
        cfg.int8,
        cfg.tolerance,
    )
    if cfg.hub is not None:
        hub.check_push(cfg.hub, plan.formats, cfg.hub_private)
    target = check_target(Path(cfg.output).expanduser())
    if cfg.threads is not None:
        if not isinstance(cfg.threads, int) or cfg.threads < 1:
            raise ConfigError(f"threads must be a whole number of at least 1, got '{cfg.threads}'")
        torch.set_num_threads(cfg.threads)
    model = load(cfg.checkpoint, "cpu")
    data = None
    if plan.int8:
        data = restore.data_from(model.saved, cfg.calibration.root)
        restore.check_classes(model.saved, data)
        calibration.check(data, cfg.calibration.images, cfg.calibration.split, cfg.calibration.max_drop)
    if cfg.measure.speed:
        speed.check(cfg.measure.size, cfg.measure.repeats)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        draft = Path(folder) / "model"
        draft.mkdir()
        export = Export(model, plan, draft)
        export.write()
        more: dict[str, Any] = {}
        if data is not None:
            more["int8"] = export.quantise(
                data, cfg.calibration.images, cfg.calibration.split, cfg.calibration.max_drop
            )
        if cfg.measure.speed:
            print("measuring images/s ...", flush=True)
            more["speed"] = speed.measure(
                export.timed(), cfg.measure.size, cfg.measure.repeats, export.model.card.pixels
            )
        report = export.describe(more)
        draft.replace(target)
    describe_run(cfg, Path(cfg.run_dir))
    table_of(report)
    print(f"exported: {target}")
    if cfg.hub is not None:
        print(f"sent: {hub.push(target, cfg.hub, private=cfg.hub_private)}")


if __name__ == "__main__":
    command_line.run(main, "export")
