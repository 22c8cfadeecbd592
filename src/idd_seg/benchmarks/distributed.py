"""What several processes on this machine cost and bring: scope=world against scope=batch, and one against two."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from idd_seg.benchmarks.loss_scenes import Shape, regions
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import Timing, summary
from idd_seg.config.instantiate import make
from idd_seg.distributed.environment import RankInfo
from idd_seg.distributed.process_group import joined
from idd_seg.errors import ConfigError
from idd_seg.losses.term import Term
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch

ADDRESS = "127.0.0.1"
SIZE = 256
SHAPE = Shape("VOC", 21, SIZE, SIZE)
SCOPES = ("batch", "world")


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Time a training step of `cfg.student` and `cfg.teacher` by `[ce, kd, idd]` in one and in two processes."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        raise ConfigError("benchmark distributed needs two GPUs, or device=cpu")
    one, two = (_steps(cfg, device, world) for world in (1, 2))
    batch, world = two["batch"], two["world"]
    shape = SHAPE
    what = f"2 processes, {shape.images} x {SIZE} x {SIZE} each, {cfg.teacher.name} to R18"
    rate = 2 * one["batch"].median / batch.median
    return [
        Row(f"{what}: scope=world", str(world), f"scope=batch: {batch}", world.median / batch.median, "less", 1.02),
        Row("images/s, two processes against one", str(batch), f"one: {one['batch']}", rate),
    ]


def _steps(cfg: DictConfig, device: torch.device, world: int) -> dict[str, Timing]:
    """Start `world` processes, and return rank 0's times by scope."""
    context = multiprocessing.get_context("spawn")
    store = TCPStore(ADDRESS, 0, is_master=True, wait_for_workers=False)
    results = context.SimpleQueue()
    text = OmegaConf.to_yaml(cfg, resolve=True)
    common = (world, store.port, text, device.type, results)
    ranks = [context.Process(target=_rank, args=(rank, *common)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if any(rank.exitcode for rank in ranks):
        raise RuntimeError("a process of the benchmark failed; it said why")
    found: Mapping[str, list[float]] = results.get()
    return {scope: summary(times) for scope, times in found.items()}


def _rank(rank: int, world: int, port: int, text: str, kind: str, results: Any) -> None:
    torch.set_num_threads(1)  # in both cases, so that the second process brings a core of its own
    cfg: DictConfig = OmegaConf.create(text)  # type: ignore[assignment]
    store = TCPStore(ADDRESS, port, is_master=False, wait_for_workers=False)
    with joined(store, RankInfo(rank, world, rank, world), 30):
        device = torch.device(kind, rank if kind == "cuda" else 0)
        times = _times(cfg, device if kind == "cuda" else torch.device("cpu"))
    if rank == 0:
        results.put(times)


def _times(cfg: DictConfig, device: torch.device) -> dict[str, list[float]]:
    shape = SHAPE
    torch.manual_seed(0)
    student = make(OmegaConf.merge(cfg.student, {"pretrained": False}), "student").to(device).train()
    teacher = FrozenTeacher(make(OmegaConf.merge(cfg.teacher.model, {"pretrained": False}), "teacher")).to(device)
    several = dist.get_world_size() > 1
    network = DistributedDataParallel(student) if several else student
    terms = {scope: _terms(cfg, scope) for scope in SCOPES}
    image = torch.randn(shape.images, 3, SIZE, SIZE).to(device)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(shape.images, 4)
    batch = Batch(image, regions(shape, device), box, ["benchmark"] * shape.images)
    found: dict[str, list[float]] = {scope: [] for scope in SCOPES}
    for i in range(cfg.repeats + 2):
        for scope in SCOPES:
            dist.barrier()
            start = time.perf_counter()
            theirs, ours = teacher(image), network(image)
            losses = [term(ours, theirs, batch) for term in terms[scope].values()]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            student.zero_grad()
            dist.barrier()
            if i >= 2:
                found[scope].append(time.perf_counter() - start)
    return found


def _terms(cfg: DictConfig, scope: str) -> dict[str, Term]:
    nodes: dict[str, Any] = {name: OmegaConf.to_container(cfg.loss[name], resolve=True) for name in ("ce", "kd", "idd")}
    nodes["idd"]["scope"] = scope
    return {name: make(OmegaConf.create(node), f"loss.{name}") for name, node in nodes.items()}
