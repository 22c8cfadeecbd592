"""One run: its folder, and the processes that it takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from idd_seg.callbacks.checkpoint import LAST
from idd_seg.config.lengths import settle_lengths
from idd_seg.config.preflight import NOTHING_GIVEN, Checked, GivenParts, preflight
from idd_seg.config.teacher_file import take_network
from idd_seg.config.teacher_plan import AUTO, needing
from idd_seg.distributed.environment import RankInfo, rank_info_of
from idd_seg.distributed.process_group import CONFIG, MEETING, config_of, joined, meet, report
from idd_seg.distributed.timeouts import peers_explained
from idd_seg.errors import ConfigError
from idd_seg.ops.said_once import each_line_once
from idd_seg.runs.assemble import assemble
from idd_seg.runs.data_files import read_files
from idd_seg.runs.fit import fit
from idd_seg.runs.launcher import launch
from idd_seg.runs.lock import best_of, finished_already, run_lock
from idd_seg.runs.restarts import refuse_without_progress
from idd_seg.runs.stopping import stoppable
from idd_seg.runs.teacher import draft_of, trained

FAILED, FINISHED = "", "finished"  # in place of a configuration: there is no run
GONE = "idd_seg/gone/{}"  # process {} has seen that there is no run
FEW = 8  # processes that may share cores, so that a run of several devices can be tried
_met: list[Any] = []  # the store, once the others have been met


def run(cfg: DictConfig, given: GivenParts = NOTHING_GIVEN) -> float:
    """Train as `cfg` says, in this process or in one for each device; return the best mIoU on held-out images.

    A finished run is not trained again: see `resume` in `conf/train.yaml`.

    Args:
        given: by a program, in place of what `cfg` describes; such a run takes one process.

    Raises:
        UserError: for whatever is wrong with configuration, data or files.
    """
    with stoppable(), each_line_once():
        return _run(cfg, rank_info_of(), given)


def _run(cfg: DictConfig, rank_info: RankInfo | None, given: GivenParts) -> float:
    if given.teacher is None:
        take_network(cfg)
    settle_lengths(cfg, lambda: _devices(cfg, rank_info) * int(cfg.trainer.num_nodes), given.data)
    checked = None if finished_already(cfg) else preflight(cfg, _files_of, given)
    devices = _devices(cfg, rank_info)
    if given.groups and (devices > 1 or rank_info is not None):
        raise ConfigError(
            f"{' and '.join(given.groups)} of this process can't be handed to others; take trainer.devices=1, or give "
            "what a checkpoint or a configuration describes"
        )
    with run_lock(cfg, None if checked is None else checked.files) as finished:
        if finished is not None:
            print(f"run folder: {cfg.run_dir}: finished already, best mIoU {100 * finished:.2f}; nothing to do")
            if rank_info is not None:
                dismiss(rank_info, FINISHED)
            return finished
        checked = checked or preflight(cfg, _files_of, given)
        refuse_without_progress(Path(cfg.run_dir), _checkpoints(cfg, checked), cfg.max_idle_restarts)
        if rank_info is not None:
            return _lead(cfg, checked, rank_info)
        _find_teacher(cfg, checked)
        if devices > 1:
            launch(cfg, devices)
            return best_of(Path(cfg.run_dir))
        return fit(assemble(cfg, checked))


def _checkpoints(cfg: DictConfig, checked: Checked) -> list[Path]:
    """Return where the run's last checkpoint is kept, and that of the teacher that it trains before."""
    folders = [Path(cfg.run_dir)]
    if checked.teacher_run is not None:
        folders.append(draft_of(checked.teacher_run))
    return [folder / "checkpoints" / f"{LAST}.ckpt" for folder in folders]


def dismiss(rank_info: RankInfo, why: str = FAILED) -> None:
    """Tell the other processes that rank 0 has no run for them: it failed before it led, or the run is finished."""
    if not _met:
        store = meet(rank_info)
        store.set(CONFIG, why)
        store.wait([GONE.format(rank) for rank in range(1, rank_info.world)], MEETING)


def follow(rank_info: RankInfo) -> None:
    """Take part in a run that rank 0 leads.

    Raises:
        SystemExit: with exit code 1, if rank 0 failed before it led; it says why.
    """
    with stoppable(), peers_explained():
        store = meet(rank_info)
        text = config_of(store)
        if text in (FAILED, FINISHED):
            store.set(GONE.format(rank_info.rank), "")
            if text == FINISHED:
                return
            raise SystemExit(1)
        take_part(OmegaConf.create(text), store, rank_info)  # type: ignore[arg-type]


def take_part(cfg: DictConfig, store: Any, rank_info: RankInfo, checked: Checked | None = None) -> float:
    """Train in a group of processes, one of which has looked at the configuration."""
    with joined(store, rank_info, cfg.trainer.timeout_minutes):
        try:
            return fit(assemble(cfg, checked, rank_info))
        except Exception as error:
            # Before this process leaves the group, at which the others fail too.
            report(store, rank_info, error)
            raise


def _lead(cfg: DictConfig, checked: Checked, rank_info: RankInfo) -> float:
    """Give the configuration to the other processes, and train with them."""
    with peers_explained():
        store = meet(rank_info)
        _met.append(store)
        text = FAILED
        try:
            _find_teacher(cfg, checked)
            text = OmegaConf.to_yaml(cfg, resolve=True)
        finally:
            store.set(CONFIG, text)  # in any case: they need not wait for a run that will not come
        return take_part(cfg, store, rank_info, checked)


def _find_teacher(cfg: DictConfig, checked: Checked) -> None:
    """Train the teacher, if it must be, before there is a group that would take part in it."""
    if not needing(checked.terms):
        return
    with open_dict(cfg):
        if checked.teacher_run is not None:
            cfg.teacher.checkpoint = trained(checked.teacher_run, _train_teacher)
        elif cfg.teacher.checkpoint == AUTO and checked.teacher is not None:
            cfg.teacher.checkpoint = checked.teacher.source["path"]
            print(f"teacher: taken from {Path(cfg.teacher.checkpoint).parents[1]}")


def _train_teacher(cfg: DictConfig, checked: Checked) -> float:
    with run_lock(cfg, checked.files) as finished:
        if finished is not None:  # the last run was stopped between the end of the training and the renaming
            return finished
        return fit(assemble(cfg, checked))


def _files_of(folder: Path) -> str | None:
    """Return the digest of the training files of the run in a folder; None where that is not known."""
    files = read_files(folder)
    return None if files is None or "train" not in files else files["train"].digest


def _devices(cfg: DictConfig, rank_info: RankInfo | None) -> int:
    """Return the number of processes on this machine, and write it into the configuration.

    Raises:
        ConfigError: for more GPUs than there are, or a number that is not the launcher's.
    """
    asked = cfg.trainer.devices
    on_gpu = cfg.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    there = torch.cuda.device_count() if on_gpu else 1
    if asked in ("auto", -1, "-1"):
        devices = there if rank_info is None else rank_info.local_world
    elif isinstance(asked, int) and not isinstance(asked, bool) and asked >= 1:
        devices = asked
    else:
        raise ConfigError(
            f"trainer.devices must be a number >= 1 or auto, got '{asked}'; to choose among GPUs, set "
            "CUDA_VISIBLE_DEVICES"
        )
    if on_gpu and devices > there:
        raise ConfigError(f"trainer.devices={devices}, but this machine shows {there} GPU(s)")
    most = max(FEW, os.cpu_count() or 1)
    if not on_gpu and rank_info is None and devices > most:
        raise ConfigError(f"trainer.devices={devices}: without a GPU up to {most} processes are started here")
    nodes = cfg.trainer.get("num_nodes", 1)
    if rank_info is None and nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={nodes}: start one process for each device by torchrun or srun (docs/clusters.md)"
        )
    if rank_info is not None and devices == 1 and asked == 1:
        devices = rank_info.local_world
    if rank_info is not None and (devices != rank_info.local_world or nodes not in (1, rank_info.nodes)):
        raise ConfigError(
            f"trainer.devices={asked} trainer.num_nodes={nodes}, but the launcher started {rank_info.local_world} "
            f"process(es) on each of {rank_info.nodes} machine(s); leave both out, or make them agree"
        )
    with open_dict(cfg):
        cfg.trainer.devices = devices
        cfg.trainer.num_nodes = 1 if rank_info is None else rank_info.nodes
    return devices
