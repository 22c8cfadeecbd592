"""Terms beside what one writes straight from their definitions, and pixels beside classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from omegaconf import DictConfig

from idd_seg.benchmarks.loss_scenes import (
    WIDTH,
    Shape,
    backward,
    beside_gradients,
    loss_step,
    outputs,
    regions,
    term_nodes,
    term_step,
)
from idd_seg.benchmarks.readings import READINGS, Scene
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import time_all
from idd_seg.losses.idd import inter_class_distance, pixel_class_distance


def reading_rows(cfg: DictConfig, shape: Shape, device: torch.device) -> list[Row]:
    """Compare terms with what one writes from their definitions, and their memory with both networks' features."""
    rows = []
    for name, node in term_nodes(cfg, shape.classes).items():
        if name not in READINGS:
            continue
        reading = READINGS[name]
        node |= reading.options or {}
        ours = term_step(node, shape, device)
        memory = beside_gradients(partial(term_step, node, shape, device), ours, device)
        what = f"{name}, {shape.images} x {WIDTH} x {shape.grid[0]} x {shape.grid[1]}, {shape.name}"
        features = 2 * shape.bytes
        rows.append(Row(f"{what}: memory", f"{memory / 1e6:.0f} MB", "features", memory / features, "less", 2))
        if shape.classes in reading.classes:
            cases = {"ours": ours, "reading": reading_step(name, shape, device)}
            found = time_all(cases, max(1, cfg.repeats // 3), warmup=1, device=device)
            ratio = found["reading"].median / found["ours"].median
            against = f"as it reads: {found['reading']}"
            rows.append(Row(what, str(found["ours"]), against, ratio, bar=reading.bar))
    return rows


def reading_step(name: str, shape: Shape, device: torch.device) -> Callable[[], int]:
    """Return one call of a loss as it is read, forward and backward; it returns the gradient's bytes."""
    module = READINGS[name].make(WIDTH).to(device).train()
    ours, theirs = (outputs(shape, ["head"], device, seed, grad=seed == 1) for seed in (1, 2))
    scene = Scene(ours.features["head"], theirs.features["head"], ours.logits, theirs.logits, regions(shape, device))

    def step() -> int:
        return backward(module(scene), scene.student, scene.student_logits)

    step()
    return step


def pixel_row(shape: Shape, repeats: int, device: torch.device) -> Row:
    """Compare distances of pixels to classes with those between classes, both over the batch."""
    cases = {
        "pixels": loss_step(pixel_class_distance, shape, device),
        "classes": loss_step(partial(inter_class_distance, scope="batch"), shape, device),
    }
    found = time_all(cases, repeats, device=device)
    ratio = found["pixels"].median / found["classes"].median
    what = f"idd level=pixels, 2 x {WIDTH} x {shape.grid[0]} x {shape.grid[1]}, {shape.name}"
    return Row(what, str(found["pixels"]), f"level=classes: {found['classes']}", ratio, "less", 3)
