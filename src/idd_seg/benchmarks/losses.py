"""Time and memory of every term, next to what reading the features once would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from idd_seg.benchmarks.loops import class_distances_by_loops, intra_class_variation_by_loops
from idd_seg.benchmarks.rows import Row
from idd_seg.benchmarks.timing import peak_device_memory, peak_memory, time_all
from idd_seg.config.instantiate import make
from idd_seg.losses.idd import inter_class_distance
from idd_seg.losses.ifvd import intra_class_variation
from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.losses.term import Term
from idd_seg.models.teacher import FrozenTeacher
from idd_seg.types import Batch, Outputs

WIDTH, STRIDE = 512, 8  # of PSPNet's and DeepLabV3's features in the field
CHANNELS = dict.fromkeys(("stage1", "stage2", "stage3", "stage4", "head"), WIDTH)
Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Shape:
    """Training crops as the losses see them: N images with labels (H, W), and features of a stride of 8."""

    name: str
    classes: int
    height: int
    width: int
    images: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the features."""
        return self.height // STRIDE, self.width // STRIDE

    @property
    def bytes(self) -> int:
        """Size of a feature map in float32."""
        return 4 * self.images * WIDTH * self.grid[0] * self.grid[1]


SHAPES = (Shape("Cityscapes", 19, 512, 1024), Shape("VOC", 21, 512, 512), Shape("ADE20K", 150, 512, 512))


def run(cfg: DictConfig, device: torch.device) -> list[Row]:
    """Measure the terms of `cfg.loss` at the benchmarks' shapes; ours against loops and the memory's bandwidth."""
    bandwidth = measure_bandwidth(device)
    rows = []
    for shape in SHAPES:
        rows += each_term(cfg, shape, device, bandwidth)
    for classes in (19, 150):
        rows += idd_rows(Shape(f"K = {classes}", classes, 512, 512), cfg.repeats, device, bandwidth)
    rows += idd_rows(Shape("K = 19", 19, 1024, 1024), cfg.repeats, device, bandwidth)
    return [*rows, *ifvd_rows(cfg.repeats, device), together(cfg, device)]


def measure_bandwidth(device: torch.device) -> float:
    """Return bytes a second that a copy of 256 MB reads and writes together."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    found = time_all({"copy": lambda: target.copy_(source)}, 15, device=device)
    return 2 * source.nbytes / found["copy"].median


def features(shape: Shape, device: torch.device, seed: int) -> Tensor:
    """Return features (N, 512, h, w) that are not negative, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape.images, WIDTH, *shape.grid, generator=generator).relu_().to(device)


def regions(shape: Shape, device: torch.device) -> Tensor:
    """Return labels (N, H, W) of 36 regions an image, with as many classes at most, one in nineteen ignored."""
    generator = torch.Generator().manual_seed(0)
    size = (shape.images, 6, 6)
    coarse = torch.randint(shape.classes, size, generator=generator)
    coarse = torch.where(torch.rand(size, generator=generator) < 1 / 19, 255, coarse)
    return nearest_labels(coarse, (shape.height, shape.width)).to(device)


def outputs(shape: Shape, maps: Sequence[str], device: torch.device, seed: int, *, grad: bool) -> Outputs:
    """Return logits and the feature maps of these names of a network."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape.images, shape.classes, *shape.grid, generator=generator).to(device)
    return Outputs(
        logits.requires_grad_(grad), {name: features(shape, device, seed).requires_grad_(grad) for name in maps}
    )


def term_nodes(cfg: DictConfig, classes: int) -> dict[str, dict[str, Any]]:
    """Return the terms' configurations, plain, for a number of classes."""
    cfg.data.num_classes = classes
    return {
        str(name): OmegaConf.to_container(node, resolve=True)  # type: ignore[misc]
        for name, node in cfg.loss.items()
        if isinstance(node, DictConfig)
    }


def term_step(node: Mapping[str, Any], shape: Shape, device: torch.device) -> Callable[[], int]:
    """Return one call of a term, forward and backward, its own optimizer step included.

    The call returns the bytes of the gradients with respect to the student's maps.
    """
    term: Term = make(OmegaConf.create(dict(node)), "loss")
    term.bind(CHANNELS, CHANNELS)
    term.to(device).train()
    student, teacher = (outputs(shape, term.teacher_maps, device, seed, grad=seed == 1) for seed in (1, 2))
    batch = _batch(shape, device)
    leaves = [student.logits, *student.features.values()]

    def step() -> int:
        term.update(student, teacher, batch)
        loss: Tensor = term(student, teacher, batch)
        return _backward(loss, *leaves)

    step()
    return step


def _batch(shape: Shape, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(shape.images, 3, shape.height, shape.width, generator=generator).to(device)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(shape.images, 4)
    return Batch(image, regions(shape, device), box, ["benchmark"] * shape.images)


def _backward(loss: Tensor, *leaves: Tensor) -> int:
    """Take the gradients, drop them, and return their bytes: what one step leaves is not found in the next."""
    torch.autograd.backward(loss)
    taken = sum(leaf.grad.nbytes for leaf in leaves if leaf.grad is not None)
    for leaf in leaves:
        leaf.grad = None
    return taken


def each_term(cfg: DictConfig, shape: Shape, device: torch.device, bandwidth: float) -> list[Row]:
    """Measure the terms one by one."""
    nodes = term_nodes(cfg, shape.classes)
    steps = {name: term_step(node, shape, device) for name, node in nodes.items()}
    found = time_all(steps, max(1, cfg.repeats // 3), warmup=1, device=device)
    floor = 3 * shape.bytes / bandwidth
    rows = []
    for name, timing in found.items():
        memory = _beside_gradients(partial(term_step, nodes[name], shape, device), steps[name], device)
        what = f"{shape.name}, {shape.images} x {WIDTH} x {shape.grid[0]} x {shape.grid[1]}: {name}"
        ours = f"{timing}, {memory / 1e6:.0f} MB"
        against = f"features once: {1e3 * floor:.2f} ms"
        rows.append(Row(what, ours, against, timing.median / floor, "less"))
        if name == "cirkd" and shape.name == "VOC":
            rows.append(
                Row("cirkd: memory at (2, 512, 64, 64)", f"{memory / 1e6:.0f} MB", "1 MB", memory / 1e6, "less", 400)
            )
    return rows


def _beside_gradients(prepare: Callable[[], Callable[[], int]], step: Callable[[], int], device: torch.device) -> float:
    """Return the peak bytes of a step, less those of the gradients with respect to the student's maps."""
    peak = peak_device_memory(step, device) if device.type == "cuda" else peak_memory(prepare)
    return float(max(0, peak - step()))


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
    memory = _beside_gradients(prepare, cases["ours"], device) / shape.bytes
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
    """Compare a training step by all terms with one by cross-entropy alone, the teacher's forward pass included."""
    shape = Shape("VOC", 21, 512, 512)
    nodes = term_nodes(cfg, shape.classes)
    student = make(OmegaConf.merge(cfg.student, {"pretrained": False}), "student").to(device).train()
    teacher = FrozenTeacher(make(OmegaConf.merge(cfg.teacher.model, {"pretrained": False}), "teacher")).to(device)
    terms: dict[str, Term] = {name: make(OmegaConf.create(node), f"loss.{name}") for name, node in nodes.items()}
    for term in terms.values():
        term.bind(student.channels, teacher.channels)
        term.to(device).train()
    batch = _batch(shape, device)

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
    what = f"a step at 2 x 512 x 512, {cfg.teacher.name} to R18, {len(terms)} terms"
    return Row(what, str(found["all"]), f"ce alone: {found['ce']}", ratio, "less", 1.15)


def loss_step(loss: Loss, shape: Shape, device: torch.device) -> Callable[[], int]:
    """Return one call of a pure loss of features and labels, forward and backward; it returns the gradient's bytes."""
    student, teacher = features(shape, device, 1).requires_grad_(), features(shape, device, 2)
    labels = regions(shape, device)

    def step() -> int:
        return _backward(loss(student, teacher, labels, shape.classes), student)

    step()
    return step
