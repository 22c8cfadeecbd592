"""`python -m idd_seg.evaluate checkpoint=PATH`: scores of a student on a split."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from idd_seg.config import command_line


def main(cfg: DictConfig) -> None:
    """Evaluate the student of `cfg.checkpoint`; print its table and write `metrics.json` in the run folder."""
    from idd_seg.checkpoints.reader import read_checkpoint
    from idd_seg.config import instantiate, restore
    from idd_seg.config.ranges import check_switch
    from idd_seg.evaluation.device import pick_device
    from idd_seg.evaluation.per_image import PerImage
    from idd_seg.evaluation.scoring import evaluate, submit
    from idd_seg.models.segmenter import count_parameters
    from idd_seg.plotting.tables import class_table
    from idd_seg.runs.provenance import describe_run, write_json

    check_switch(cfg, "per_image")
    saved = read_checkpoint(cfg.checkpoint)
    data = restore.data_from(saved, cfg.root, num_workers=cfg.num_workers)
    inference = instantiate.make_inference(cfg.eval, saved)
    network = restore.student_from(saved)
    restore.check_classes(saved, data)
    device, run_dir = pick_device(cfg.device), Path(cfg.run_dir)
    if cfg.submit:
        archive = submit(network, data, cfg.split, device, run_dir / "submission", inference)
        describe_run(cfg, run_dir)
        print(f"for the server: {archive}")
        return
    per_image = PerImage(data.class_names) if cfg.per_image else None
    found = evaluate(network, data, cfg.split, device, f"{data.name} {cfg.split}", inference, per_image)
    describe_run(cfg, run_dir)
    if per_image is not None:
        worst = ", ".join(f"{name} ({100 * own.miou:.1f} %)" for name, own, _ in per_image.worst(3))
        print(f"picture by picture: {per_image.write(run_dir)}; the worst: {worst}")
    source = {"checkpoint": str(saved.path), "sha256": saved.sha256, "parameters": count_parameters(network)}
    write_json(
        run_dir / "metrics.json",
        {"data": data.name, "split": cfg.split, **source, **inference.as_dict(), **found.as_dict(data.class_names)},
    )
    class_table(f"{saved.path.name}, {data.name}, {cfg.split} split", data.class_names, {"student": found})
    print(f"run folder: {run_dir}")


if __name__ == "__main__":
    command_line.run(main, "evaluate")
