"""`python -m idd_seg.import_checkpoint teacher=NAME checkpoint=PATH out=FILE`: a foreign file becomes one of ours."""

from __future__ import annotations

from omegaconf import DictConfig

from idd_seg.config import command_line


def main(cfg: DictConfig) -> None:
    """Read the network of `cfg.teacher` from `cfg.checkpoint` and write it to `cfg.out`, whole or not at all."""
    from idd_seg.config import teacher as teacher_config
    from idd_seg.models.foreign.saving import names_for, target_of, write

    out = target_of(cfg.out, cfg.checkpoint)
    opened, model = teacher_config.open_for_import(cfg)
    names = names_for(opened, cfg.teacher.class_names, cfg.data.name, cfg.data.class_names)
    write(out, opened, model, names)
    for line in opened.said:
        print(line)
    named = "without names of classes" if names is None else f"classes {', '.join(names)}"
    print(f"written: {out}, {named}")
    print(f"to use it: teacher=imported teacher.checkpoint={out}")


if __name__ == "__main__":
    command_line.run(main, "import_checkpoint")
