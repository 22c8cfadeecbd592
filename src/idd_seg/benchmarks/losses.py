"""Time and memory of every term, next to what reading the features once would take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from idd_seg.benchmarks.loops import class_distances_by_loops, intra_class_variation_by_loops
from idd_seg.benchmarks.loss_scenes import (
    WIDTH,
    Shape,
    batch_of,
    beside_gradients,
    loss_step,
    term_nodes,
    term_step,
)
from idd_seg.benchmarks.reading_rows import pixel_row, reading_rows
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import time_all
from idd_seg.config.instantiate import make
from idd_seg.errors import ConfigError, suggest
from idd_seg.losses.idd import inter_class_distance
from idd_seg.losses.ifvd import intra_class_variation
from idd_seg.losses.term import Term
from idd_seg.models.teacher import FrozenTeacher

SHAPES = (Shape("Cityscapes", 19, 512, 1024), Shape("VOC", 21, 512, 512), Shape("ADE20K", 150, 512, 512))
BARRED = (Shape("K = 19", 19, 512, 512), Shape("K = 150", 150, 512, 512), Shape("K = 19", 19, 1024, 1024))
PARTS = ("idd", "ifvd", "readings", "together", "terms")
GENERATING = ("mgd", "afdcd", "rmrkd")


def run(cfg: DictConfig, device: torch.device) -> Iterator[Row]:
    """Measure the terms of `cfg.loss` at the benchmarks' shapes; ours against loops and the memory's bandwidth.

    What has a bar comes first.

    Raises:
        ConfigError: if `cfg.losses.only` names something else than `PARTS`.
    """
    chosen = _chosen(cfg.losses.only)
    bandwidth = measure_bandwidth(device)
    if "idd" in chosen:
        for shape in BARRED:
            yield from idd_rows(shape, cfg.repeats, device, bandwidth)
    if "ifvd" in chosen:
        yield from ifvd_rows(cfg.repeats, device)
    if "readings" in chosen:
        for shape in BARRED[:2]:
            yield from reading_rows(cfg, shape, device)
            yield pixel_row(shape, cfg.repeats, device)
    if "together" in chosen:
        yield together(cfg, device)
    if "terms" in chosen:
        for shape in SHAPES:
            yield from each_term(cfg, shape, device, bandwidth)


def _chosen(only: Any) -> Sequence[str]:
    if only is None:
        return PARTS
    if not OmegaConf.is_list(only) or not only:
        raise ConfigError(f"losses.only must be a list of some of {', '.join(PARTS)}, got '{only}'")
    for name in map(str, only):
        if name not in PARTS:
            raise ConfigError(f"losses.only: there is no '{name}'{suggest(name, PARTS)} They are {', '.join(PARTS)}")
    return [str(name) for name in only]


def measure_bandwidth(device: torch.device) -> float:
    """Return bytes a second that a copy of 256 MB reads and writes together."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    found = time_all({"copy": lambda: target.copy_(source)}, 15, device=device)
    return 2 * source.nbytes / found["copy"].median


def each_term(cfg: DictConfig, shape: Shape, device: torch.device, bandwidth: float) -> list[Row]:
    """Measure the terms one by one."""
    nodes = term_nodes(cfg, shape.classes)
    steps = {name: term_step(node, shape, device) for name, node in nodes.items()}
    found = time_all(steps, max(1, cfg.repeats // 3), warmup=1, device=device)
    floor = 3 * shape.bytes / bandwidth
    rows = []
    for name, timing in found.items():
        memory = beside_gradients(partial(term_step, nodes[name], shape, device), steps[name], device)
        what = f"{shape.name}, {shape.images} x {WIDTH} x {shape.grid[0]} x {shape.grid[1]}: {name}"
        ours = f"{timing}, {memory / 1e6:.0f} MB"
        against = f"features once: {1e3 * floor:.2f} ms"
        rows.append(Row(what, ours, against, timing.median / floor, "less"))
        if name == "cirkd" and shape.name == "VOC":
            rows.append(
                Row("cirkd: memory at (2, 512, 64, 64)", f"{memory / 1e6:.0f} MB", "1 MB", memory / 1e6, "less", 400)
            )
    return rows


def idd_rows(shape: Shape, repeats: int, device: torch.device, bandwidth: float) -> list[Row]:
    """Compare class distances with a loop over images and classes, and with the memory's bandwidth."""
    cases = {
        "ours": loss_step(inter_class_distance, shape, device),
        "loop": loss_step(class_distances_by_loops, shape, device),
    }
    found = time_all(cases, repeats, device=device)
    ours, loop, floor = found["ours"], found["loop"], 3 * shape.bytes / bandwidth
    what = f"idd, 2 x {WIDTH} x {shape.grid[0]} x {shape.grid[1]}, {shape.name}"
    large = shape.grid[0] > 64
    limit = 3.0 if device.type == "cuda" else 8.0 if large else 6.0
    prepare = partial(loss_step, inter_class_distance, shape, device)
    memory = beside_gradients(prepare, cases["ours"], device) / shape.bytes
    speed_up = loop.median / ours.median
    return [
        Row(what, str(ours), f"boolean masks: {loop}", speed_up, bar=None if large else 15),
        Row(what, str(ours), f"features once: {1e3 * floor:.2f} ms", ours.median / floor, "less", limit),
        Row(f"{what}: memory", f"{memory * shape.bytes / 1e6:.1f} MB", "student's features", memory, "less", 1 / 3),
    ]


def ifvd_rows(repeats: int, device: torch.device) -> list[Row]:
    """Compare intra-class variation with masks of full size."""
    rows = []
    for classes, bar in ((19, 20), (150, 100)):
        shape = Shape("VOC", classes, 512, 512)
        cases = {
            "ours": loss_step(intra_class_variation, shape, device),
            "masks": loss_step(intra_class_variation_by_loops, shape, device),
        }
        found = time_all(cases, max(1, repeats // 3), warmup=1, device=device)
        ratio = found["masks"].median / found["ours"].median
        rows.append(Row(f"ifvd, K = {classes}", str(found["ours"]), f"full masks: {found['masks']}", ratio, bar=bar))
    return rows


def together(cfg: DictConfig, device: torch.device) -> Row:
    """Compare a training step by all terms with one by cross-entropy alone, the teacher's forward pass included.

    The terms that generate the teacher's widest map by two convolutions of its width are left out: they are trained
    with the student, and cost more than all others together.
    """
    shape = Shape("VOC", 21, 512, 512)
    nodes = {name: node for name, node in term_nodes(cfg, shape.classes).items() if name not in GENERATING}
    student = make(OmegaConf.merge(cfg.student, {"pretrained": False}), "student").to(device).train()
    teacher = FrozenTeacher(make(OmegaConf.merge(cfg.teacher.model, {"pretrained": False}), "teacher")).to(device)
    terms: dict[str, Term] = {name: make(OmegaConf.create(node), f"loss.{name}") for name, node in nodes.items()}
    for term in terms.values():
        term.bind(student.channels, teacher.channels)
        term.to(device).train()
    batch = batch_of(shape, device)

    def step(names: Sequence[str]) -> None:
        theirs, ours = teacher(batch.image), student(batch.image)
        losses = []
        for name in names:
            terms[name].update(ours, theirs, batch)
            losses.append(terms[name].weight * terms[name](ours, theirs, batch))
        torch.autograd.backward(torch.stack(losses).sum())
        student.zero_grad()

    found = time_all(
        {"all": lambda: step(list(terms)), "ce": lambda: step(["ce"])}, max(1, cfg.repeats // 3), 1, device
    )
    ratio = found["all"].median / found["ce"].median
    what = f"a step at 2 x 512 x 512, {cfg.teacher.name} to R18, {len(terms)} terms without a generator"
    return Row(what, str(found["all"]), f"ce alone: {found['ce']}", ratio, "less", 1.15)
