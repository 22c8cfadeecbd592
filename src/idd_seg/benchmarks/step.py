"""A whole training step by the trainer, against the bare step of the same networks, part by part."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from idd_seg.benchmarks.bounds import bound, count_step, measure_bandwidth, measure_matrix_rate
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.step_picture import draw
from idd_seg.benchmarks.stopwatch import PARTS, Silent, Stopwatch, Watched
from idd_seg.benchmarks.timing import Timing, summary
from idd_seg.build import BARE, make, make_terms
from idd_seg.callbacks.progress import ProgressLines
from idd_seg.callbacks.throughput import Throughput
from idd_seg.metrics_file import MetricsFile
from idd_seg.models.segmenter import Segmenter
from idd_seg.models.speed import Speed
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.run_folder import write_json
from idd_seg.training import quieten
from idd_seg.types import Batch

WARM_UP = 2
# Bars: of the step against the bare one, in float32, with the fast settings, and of what is not the networks'.
PLAIN, FAST, LARGE_FAST, REST = 1.03, 0.55, 0.50, 0.03
GPU_SPEED, GPU_RATE, GPU_MEMORY = 3.0, 0.40, 0.55


@dataclass(frozen=True)
class Way:
    """How the networks are computed."""

    name: str
    speed: dict[str, Any]
    precision: str
    bar: float | None = None


@dataclass
class Measured:
    """Seconds of a step of one way, and of the bare step between; the parts of some further steps."""

    ours: Timing
    bare: Timing
    parts: dict[str, float]
    bare_parts: dict[str, float]
    memory: int | None = None


@dataclass
class Blocks:
    """Seconds a step of blocks of steps."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Measure the step at each of `cfg.step.sizes`; writes `step.json` and `step.png` in the run folder."""
    quieten()
    rows, content = [], []
    for size in cfg.step.sizes:
        found = _measure_size(cfg, device, (int(size[0]), int(size[1])))
        content.append(found)
        rows += _rows(found, device)
    folder = Path(cfg.run_dir)
    write_json(folder / "step.json", {"device": str(device), "sizes": [_plain(found) for found in content]})
    draw(content, folder / "step.png")
    from idd_seg.benchmarks.generated import generator_row  # which trains as is done here

    return [*rows, generator_row(cfg, device)]


def ways(device: torch.device, size: tuple[int, int], compiled: bool) -> list[Way]:
    """Return what is measured on a device; on a GPU the first is what the last is compared with."""
    fast = {"channels_last": True, "teacher_precision": "bfloat16", "tf32": True, "compile": compiled}
    if device.type == "cuda":
        return [Way("float32, as written", {"fold_teacher": False}, "32-true"), Way("fast", fast, "bf16-mixed")]
    bar = LARGE_FAST if min(size) >= 512 else FAST
    return [Way("float32", {}, "32-true", PLAIN), Way("fast", fast, "bf16-mixed", bar)]


def _measure_size(cfg: DictConfig, device: torch.device, size: tuple[int, int]) -> dict[str, Any]:
    batch = int(cfg.step.batch or (16 if device.type == "cuda" else 2))
    data = Pictures(batch, size, int(cfg.data.num_classes), device)
    student, teacher = _networks(cfg)
    flops, held = count_step(student.to(device).train(), teacher.to(device), data.batch.image)
    rates = {name: measure_matrix_rate(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
    found: dict[str, Any] = {
        "size": size,
        "batch": batch,
        "flops": flops,
        "bytes": held,
        "rates": rates,
        "bandwidth": measure_bandwidth(device),
        "ways": {},
    }
    for way in ways(device, size, bool(cfg.compile)):
        found["ways"][way.name] = (way, _measure(cfg, device, way, data))
    return found


def _networks(cfg: DictConfig) -> tuple[Segmenter, Segmenter]:
    torch.manual_seed(0)
    student = make(OmegaConf.merge(cfg.student, {"pretrained": False}), "student")
    node = OmegaConf.merge(cfg.teacher.model, BARE)
    node._set_parent(cfg.teacher)
    return student, make(node, "teacher.model").eval().requires_grad_(False)


class Pictures(L.LightningDataModule):
    """A batch of noise and large regions that is loaded again and again, as a loader would give it."""

    def __init__(self, images: int, size: tuple[int, int], classes: int, device: torch.device) -> None:
        super().__init__()
        self.watch: Stopwatch | None = None
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(256, (images, 3, *size), dtype=torch.uint8, generator=generator)
        coarse = torch.randint(classes, (images, 1, 6, 6), generator=generator).float()
        label = F.interpolate(coarse, size=size)[:, 0].to(torch.uint8)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(images, 1)
        self.loaded = Batch(image, label, box, ["benchmark"] * images)
        if device.type == "cuda":
            self.loaded = self.loaded.pin_memory()
        self.batch = self.on_after_batch_transfer(self.loaded.to(device), 0)

    def train_dataloader(self) -> Any:
        return _Forever(self.loaded)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        with (self.watch or Silent(device)).within("data"):
            return batch.to(device)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        with (self.watch or Silent(batch.image.device)).within("data"):
            return self._normalised(batch)

    def _normalised(self, batch: Batch) -> Batch:
        image = batch.image.float().div_(255).sub_(0.45).div_(0.225)
        return Batch(image, batch.label.long(), batch.box, batch.names)


class _Forever:
    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Any:
        while True:
            yield self.batch


def _measure(cfg: DictConfig, device: torch.device, way: Way, data: Pictures) -> Measured:
    """Train by the way, bare steps in between, in blocks; then some steps part by part, of both."""
    module = module_of(cfg, way.speed, device, cfg.step.terms)
    bare = Bare(cfg, data.batch, device)
    blocks, clock = Blocks(), Stopwatch(device)
    # Blocks, so that a GPU's launches run ahead as in training.
    beside = Beside(bare, blocks, module, data, clock, int(cfg.repeats), 10 if device.type == "cuda" else 1)
    fit(module, data, way.precision, device, beside)
    parts = {name: beside.clock.seconds.get(name, 0.0) / beside.parted for name in PARTS}
    memory = _memory(cfg, device, way, data) if device.type == "cuda" else None
    return Measured(summary(blocks.ours), summary(blocks.bare), parts, bare.parts(3, Stopwatch(device)), memory)


def module_of(cfg: DictConfig, speed_options: dict[str, Any], device: torch.device, terms_of: Sequence[str]) -> Watched:
    """Build a Distiller of the configuration's networks, with these of its terms."""
    student, network = _networks(cfg)
    teacher = FrozenTeacher(network)
    chosen = {name: weight for name, weight in cfg.loss.items() if str(name).removesuffix("_weight") in terms_of}
    terms = make_terms(OmegaConf.create(chosen, parent=cfg))
    optimizer = make(cfg.optimizer, "optimizer")
    scheduler = make(cfg.scheduler, "scheduler", total_iters=10_000)
    module = Watched(student, teacher, terms, optimizer, scheduler)
    speed = Speed(**speed_options)
    speed.set_up()
    speed.prepare(student, teacher, device)
    return module


def fit(module: Watched, data: L.LightningDataModule, precision: str, device: torch.device, beside: L.Callback) -> None:
    """Train until `beside` ends it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_steps=10_000,
            logger=MetricsFile(folder),
            callbacks=[Throughput(10), ProgressLines(1e9), beside],
            log_every_n_steps=10,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            benchmark=device.type == "cuda",
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(module, datamodule=data)


class Bare:
    """The teacher's forward pass without gradient and a step of the student by cross-entropy, and nothing else."""

    def __init__(self, cfg: DictConfig, batch: Batch, device: torch.device) -> None:
        self.student, self.teacher = _networks(cfg)
        self.student.to(device).train()
        self.teacher.to(device)
        self.batch = batch
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def _loss(self, logits: torch.Tensor) -> torch.Tensor:
        size = self.batch.label.shape[-2:]
        wide = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return F.cross_entropy(wide, self.batch.label, ignore_index=255)

    def step(self, clock: Stopwatch) -> None:
        """Take one step."""
        with clock.within("teacher"), torch.no_grad():
            self.teacher(self.batch.image)
        with clock.within("student"):
            outputs = self.student(self.batch.image)
        with clock.within("terms"):
            loss = self._loss(outputs.logits)
            if outputs.auxiliary is not None:
                loss = loss + 0.4 * self._loss(outputs.auxiliary)
        with clock.within("backward"):
            torch.autograd.backward(loss)
        with clock.within("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def parts(self, steps: int, clock: Stopwatch) -> dict[str, float]:
        """Return seconds a step by part."""
        for _ in range(steps):
            self.step(clock)
        return {name: seconds / steps for name, seconds in clock.seconds.items()}


class Beside(L.Callback):
    """Takes bare steps between those of the training, times both, and ends the training; some last steps by parts."""

    PARTED = 3

    def __init__(
        self, bare: Bare, blocks: Blocks, module: Watched, data: Pictures, clock: Stopwatch, repeats: int, block: int
    ) -> None:
        self.bare, self.blocks, self.module, self.data, self.clock = bare, blocks, module, data, clock
        self.repeats, self.block = repeats, block
        self.silent = Silent(clock.device)
        self.steps, self.since, self.parted = 0, 0.0, 0

    def _now(self) -> float:
        if self.clock.device.type == "cuda":
            torch.cuda.synchronize(self.clock.device)
        return time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps += 1
        if self.parted:
            self._end_part(trainer)
        elif self.steps % self.block == 0:
            self._end_block(trainer)

    def _end_block(self, trainer: L.Trainer) -> None:
        ended = self._now()
        if self.steps > WARM_UP * self.block:
            self.blocks.ours.append((ended - self.since) / self.block)
        start = self._now()
        for _ in range(self.block):
            self.bare.step(self.silent)
        if self.steps > WARM_UP * self.block:
            self.blocks.bare.append((self._now() - start) / self.block)
        if len(self.blocks.ours) == self.repeats:
            self.parted = 1
            self.module.watch = self.clock
            self.data.watch = self.clock
            self.clock.watch(self.module.student, "student")
            self.clock.start("rest")
        self.since = self._now()

    def _end_part(self, trainer: L.Trainer) -> None:
        if self.parted == self.PARTED:
            self.clock.stop()
            self.data.watch = None
            trainer.should_stop = True
            return
        self.parted += 1


def _memory(cfg: DictConfig, device: torch.device, way: Way, data: Pictures) -> int:
    """Return the bytes at the peak of a training alone."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    module = module_of(cfg, way.speed, device, cfg.step.terms)
    torch.cuda.reset_peak_memory_stats(device)
    fit(module, data, way.precision, device, _Stop(4))
    return torch.cuda.max_memory_allocated(device) - before


class _Stop(L.Callback):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.left -= 1
        trainer.should_stop = self.left <= 0


def _rows(found: dict[str, Any], device: torch.device) -> list[Row]:
    size = f"{found['batch']} x {found['size'][0]} x {found['size'][1]}"
    rows = []
    for way, m in found["ways"].values():
        rows.append(
            Row(
                f"step, {size}, {way.name}",
                str(m.ours),
                f"bare: {m.bare}",
                m.ours.median / m.bare.median,
                "less",
                way.bar,
            )
        )
        extra = m.parts["rest"] + max(0.0, m.parts["terms"] - m.bare_parts["terms"])
        whole = sum(m.parts.values())
        what = f"  of it trainer, logging, terms beyond cross-entropy, {way.name}"
        rows.append(
            Row(
                what,
                f"{1e3 * extra:.1f} ms",
                f"{1e3 * whole:.1f} ms",
                extra / whole,
                "less",
                REST if way.bar == PLAIN else None,
            )
        )
        least = bound(found, way.precision)
        rows.append(
            Row(
                f"  against the arithmetic bound, {way.name}",
                str(m.ours),
                f"{1e3 * least:.1f} ms",
                m.ours.median / least,
                "less",
            )
        )
    if device.type == "cuda":
        rows += _gpu_rows(found, size)
    return rows


def _gpu_rows(found: dict[str, Any], size: str) -> list[Row]:
    (_, plain), (_, fast) = found["ways"].values()
    rate = found["flops"] / fast.ours.median / found["rates"]["bfloat16"]
    memory = fast.memory / plain.memory
    return [
        Row(
            f"all settings against float32, {size}",
            str(fast.ours),
            str(plain.ours),
            plain.ours.median / fast.ours.median,
            "more",
            GPU_SPEED,
        ),
        Row(
            "  share of the bfloat16 matrix rate",
            f"{found['flops'] / fast.ours.median / 1e12:.0f} T/s",
            f"{found['rates']['bfloat16'] / 1e12:.0f} T/s",
            rate,
            "more",
            GPU_RATE,
        ),
        Row("  peak memory", f"{fast.memory / 1e9:.1f} GB", f"{plain.memory / 1e9:.1f} GB", memory, "less", GPU_MEMORY),
    ]


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Return plain values for JSON."""
    measured = {
        name: {
            "precision": way.precision,
            "speed": way.speed,
            "seconds": vars(m.ours),
            "bare_seconds": vars(m.bare),
            "parts": m.parts,
            "bare_parts": m.bare_parts,
            "peak_memory": m.memory,
            "bound_seconds": bound(found, way.precision),
        }
        for name, (way, m) in found["ways"].items()
    }
    return {**found, "ways": measured}
