"""`python -m idd_seg.compare "runs={twin: FOLDER, student: FOLDER}"`: a table and a picture of several runs."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from idd_seg.config import command_line
from idd_seg.config.ranges import check_whole


def main(cfg: DictConfig) -> None:
    """Compare the runs of `cfg.runs`, and the teacher they were distilled from, on one split."""
    from idd_seg.checkpoints.reader import read_checkpoint
    from idd_seg.config import restore
    from idd_seg.config.teacher_channels import channels_of
    from idd_seg.errors import CheckpointError, ConfigError
    from idd_seg.evaluation import cases, comparison
    from idd_seg.evaluation.device import pick_device
    from idd_seg.evaluation.per_image import PerImage
    from idd_seg.plotting.figures import save
    from idd_seg.runs.provenance import describe_run, write_json

    if not isinstance(cfg.runs, DictConfig) or not cfg.runs:
        raise ConfigError('runs must name run folders: "runs={twin: FOLDER, student: FOLDER}"')
    if cfg.checkpoint not in ("last", "best"):
        raise ConfigError(f"checkpoint must be last or best, got '{cfg.checkpoint}'")
    for key, least in (("samples", 1), ("probe_steps", 1), ("worst", 0)):
        check_whole(cfg, key, least)
    saved = {
        str(name): read_checkpoint(Path(str(folder)) / "checkpoints" / f"{cfg.checkpoint}.ckpt")
        for name, folder in cfg.runs.items()
    }
    newest = list(saved.values())[-1]
    noted = newest.metadata.get("teacher", {})
    asked = cfg.teacher.checkpoint
    teacher = noted.get("path") if asked == "auto" else asked
    if asked == "auto" and noted.get("network"):
        print(
            f"teacher: '{teacher}' is a network from elsewhere, and is left out: networks of this program are compared"
        )
        teacher = None
    if teacher:
        saved = {"teacher": read_checkpoint(teacher), **saved}
    if teacher and asked == "auto" and saved["teacher"].sha256 != noted.get("sha256"):
        raise CheckpointError(f"'{teacher}' is no longer the teacher of '{newest.path}'; name it with teacher=PATH")
    data = restore.data_from(newest, cfg.root, num_workers=cfg.num_workers)
    if teacher and asked == "auto" and channels_of(saved["teacher"]) != data.pixels.channels:
        print(f"teacher: '{teacher}' sees other channels than the students, and is left out")
        saved.pop("teacher")
    device = pick_device(cfg.device)
    networks = {name: restore.student_from(s) for name, s in saved.items()}
    for s in saved.values():
        restore.check_classes(s, data)
        if channels_of(s) != data.pixels.channels:
            raise CheckpointError(
                f"'{s.path}' sees {channels_of(s)} channels, and the data of '{newest.path}' have "
                f"{data.pixels.channels}"
            )
    per_image = {name: PerImage(data.class_names) for name in networks}
    portraits = {
        name: comparison.portray(
            name, network, data, cfg.split, device, cfg.probe_steps, cfg.seed, per_image[name] if cfg.worst else None
        )
        for name, network in networks.items()
    }
    columns = comparison.sample_columns(networks, data, cfg.split, device, cfg.samples)
    run_dir = Path(cfg.run_dir)
    describe_run(cfg, run_dir)
    content = {"data": data.name, "split": cfg.split, "checkpoint": cfg.checkpoint}
    write_json(run_dir / "comparison.json", {**content, "networks": comparison.as_dict(portraits, data.class_names)})
    title = f"{data.name}, {cfg.split} split, {cfg.checkpoint} checkpoint"
    comparison.print_table(title, portraits, data.class_names)
    text = comparison.markdown(title, portraits, data.class_names)
    alone = [name for name, each in saved.items() if name != "teacher" and not each.metadata.get("teacher")]
    twin = comparison.twin_of(portraits, alone, next(reversed(networks)))
    if twin and "teacher" in portraits:
        print(line := comparison.lead_line(portraits, twin))
        text = f"{text.rstrip()}\n\n{line}\n"
    (run_dir / "comparison.md").write_text(text, encoding="utf-8")
    picture = save(comparison.draw(portraits, columns, data), run_dir / "comparison.png")
    matrices = save(comparison.draw_matrices(portraits, data.class_names), run_dir / "matrices.png")
    print(f"pictures: {picture}, {matrices}")
    names = [str(name) for name in cfg.runs]
    pair = (names[0], names[-1]) if len(names) > 1 else None
    if cfg.worst and (pictures := cases.judged(per_image)):
        print(f"picture by picture: {cases.write(run_dir / 'pictures.csv', pictures, pair)}")
        chosen = cases.choose(pictures, pair, names[-1], cfg.worst)
        fig = cases.show(chosen, networks, data, cfg.split, device, pair)
        print(f"the worst, and what changed: {save(fig, run_dir / 'pictures.png')}")


if __name__ == "__main__":
    command_line.run(main, "compare")
