"""A whole training step by the trainer, against the bare step of the same networks, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from idd_seg.benchmarks.bare import Bare, Pictures, networks_of
from idd_seg.benchmarks.bars import FAST, LARGE_FAST, PLAIN
from idd_seg.benchmarks.beside import Beside, Blocks, Stop
from idd_seg.benchmarks.bounds import count_step, measure_bandwidth, measure_matrix_rate
from idd_seg.benchmarks.fitting import fit, module_of
from idd_seg.benchmarks.generated import generator_row
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.step_picture import draw
from idd_seg.benchmarks.step_rows import Measured, Way, plain_of, rows_of_way
from idd_seg.benchmarks.stopwatch import PARTS, Stopwatch
from idd_seg.benchmarks.timing import summary
from idd_seg.config.ranges import whole
from idd_seg.errors import ConfigError
from idd_seg.models.speed import compiler_works
from idd_seg.ops.quiet import quieten
from idd_seg.runs.provenance import write_json


def run(cfg: DictConfig, device: torch.device) -> Iterator[Row]:
    """Measure the step at each of `cfg.step.sizes`; writes `step.json` and `step.png` in the run folder.

    The suite `generated` follows, unless `cfg.step.generated` leaves it out.

    Raises:
        ConfigError: for a batch, a block or a side of a matrix that is no whole number.
    """
    quieten()
    for key in ("batch", "block", "matrix"):
        if cfg.step[key] is not None and not whole(1)(cfg.step[key]):
            raise ConfigError(f"step.{key} must be a whole number >= 1 or null, got '{cfg.step[key]}'")
    folder, content = Path(cfg.run_dir), []
    for size in cfg.step.sizes:
        found = _size(cfg, device, (int(size[0]), int(size[1])))
        content.append(found)
        for way in ways(device, size, bool(cfg.compile)):
            found["ways"][way.name] = (way, _measure(cfg, device, way, found["data"]))
            write_json(folder / "step.json", {"device": str(device), "sizes": [plain_of(each) for each in content]})
            yield from rows_of_way(found, way.name, device)
        del found["data"]
    draw(content, folder / "step.png")
    if cfg.step.generated:
        yield generator_row(cfg, device)


def ways(device: torch.device, size: Sequence[int], compiled: bool) -> list[Way]:
    """Return what is measured on a device; on a GPU the first is what the others are compared with."""
    fast = {"channels_last": True, "teacher_precision": "bfloat16", "tf32": True}
    further = [Way("fast, compiled", {**fast, "compile": True}, "bf16-mixed")]
    if not compiled or not compiler_works(device):
        further = []
    if device.type == "cuda":
        written = {"fold_teacher": False, "split_pyramid": False}
        return [Way("float32, as written", written, "32-true"), Way("fast", fast, "bf16-mixed"), *further]
    bar = LARGE_FAST if min(size) >= 512 else FAST
    return [Way("float32", {}, "32-true", PLAIN), Way("fast", fast, "bf16-mixed", bar), *further]


def _size(cfg: DictConfig, device: torch.device, size: tuple[int, int]) -> dict[str, Any]:
    """Return what is to be known of a size before its ways are measured, and the batch that they train on."""
    batch = int(cfg.step.batch or (16 if device.type == "cuda" else 2))
    data = Pictures(batch, size, int(cfg.data.num_classes), device)
    student, teacher = networks_of(cfg)
    flops, held = count_step(student.to(device).train(), teacher.to(device), data.batch.image)
    side = cfg.step.matrix
    rates = {name: measure_matrix_rate(device, getattr(torch, name), side=side) for name in ("float32", "bfloat16")}
    return {
        "size": size,
        "batch": batch,
        "flops": flops,
        "bytes": held,
        "rates": rates,
        "bandwidth": measure_bandwidth(device),
        "ways": {},
        "data": data,
    }


def _measure(cfg: DictConfig, device: torch.device, way: Way, data: Pictures) -> Measured:
    """Train by the way, bare steps in between, in blocks; then some steps part by part, of both.

    A compiled network, which would be compiled anew to be watched, has no parts.
    """
    module = module_of(cfg, way.speed, device, cfg.step.terms)
    bare = Bare(cfg, data.batch, device)
    blocks, clock = Blocks(), Stopwatch(device)
    # Blocks, so that a GPU's launches run ahead as in training.
    block = int(cfg.step.block or (10 if device.type == "cuda" else 1))
    beside = Beside(bare, blocks, module, data, clock, int(cfg.repeats), block, in_parts=not way.compiled)
    fit(module, data, way.precision, device, beside, cfg.trainer.gradient_clip_val)
    parts = {name: clock.seconds.get(name, 0.0) / beside.parted for name in PARTS} if beside.parted else {}
    memory = _memory(cfg, device, way, data) if device.type == "cuda" else None
    return Measured(summary(blocks.ours), summary(blocks.bare), parts, bare.parts(3, Stopwatch(device)), memory)


def _memory(cfg: DictConfig, device: torch.device, way: Way, data: Pictures) -> int:
    """Return the bytes at the peak of a training alone."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    module = module_of(cfg, way.speed, device, cfg.step.terms)
    torch.cuda.reset_peak_memory_stats(device)
    fit(module, data, way.precision, device, Stop(4), cfg.trainer.gradient_clip_val)
    return torch.cuda.max_memory_allocated(device) - before
