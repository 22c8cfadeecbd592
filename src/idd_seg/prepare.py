"""`python -m idd_seg.prepare data=NAME`: fetch a data set where its owner lets anyone, and check every file."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from idd_seg.config import command_line
from idd_seg.config.ranges import check_whole, words_of
from idd_seg.errors import ConfigError


def main(cfg: DictConfig) -> None:
    """Fetch what is missing, then check the data set; contact sheets and a report lie in the run folder."""
    from idd_seg.config import instantiate
    from idd_seg.config.class_proposal import write_classes
    from idd_seg.data.download.plan import obtain
    from idd_seg.dataset_check.channel_sums import without_normalisation
    from idd_seg.dataset_check.report import check
    from idd_seg.runs.provenance import describe_run

    splits = words_of(cfg, "splits")
    check_whole(cfg, "workers", 0)
    check_whole(cfg, "samples", 1)
    if "download" in cfg and not OmegaConf.is_dict(cfg.download):
        raise ConfigError(
            f"download={cfg.download}: where a data set comes from goes with data={cfg.data.name}, and is not chosen; "
            "fetch=false leaves it out"
        )
    without_normalisation(cfg)
    if cfg.classes is not None:
        print(write_classes(cfg))
    data = instantiate.make_data(cfg)
    run_dir = Path(cfg.run_dir)
    describe_run(cfg, run_dir)
    if cfg.fetch and "download" in cfg:
        obtain(
            instantiate.make(cfg.download, "download"),
            Path(cfg.data.root).expanduser(),
            Path(cfg.archives_dir).expanduser(),
        )
    check(data, splits, cfg.workers, cfg.samples, cfg.seed, run_dir)


if __name__ == "__main__":
    command_line.run(main, "prepare")
