"""The maps, labels and calls that the benchmarks of losses measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from idd_seg.benchmarks.timing import peak_device_memory, peak_memory
from idd_seg.config.instantiate import make
from idd_seg.losses.ops.grid import nearest_labels
from idd_seg.losses.term import Term
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
    batch = batch_of(shape, device)
    leaves = [student.logits, *student.features.values()]

    def step() -> int:
        term.update(student, teacher, batch)
        loss: Tensor = term(student, teacher, batch)
        return backward(loss, *leaves)

    step()
    return step


def batch_of(shape: Shape, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(shape.images, 3, shape.height, shape.width, generator=generator).to(device)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).expand(shape.images, 4)
    return Batch(image, regions(shape, device), box, ["benchmark"] * shape.images)


def backward(loss: Tensor, *leaves: Tensor) -> int:
    """Take the gradients, drop them, and return their bytes: what one step leaves is not found in the next."""
    torch.autograd.backward(loss)
    taken = sum(leaf.grad.nbytes for leaf in leaves if leaf.grad is not None)
    for leaf in leaves:
        leaf.grad = None
    return taken


def beside_gradients(prepare: Callable[[], Callable[[], int]], step: Callable[[], int], device: torch.device) -> float:
    """Return the peak bytes of a step, less those of the gradients with respect to the student's maps."""
    peak = peak_device_memory(step, device) if device.type == "cuda" else peak_memory(prepare)
    return float(max(0, peak - step()))


def loss_step(loss: Loss, shape: Shape, device: torch.device) -> Callable[[], int]:
    """Return one call of a pure loss of features and labels, forward and backward; it returns the gradient's bytes."""
    student, teacher = features(shape, device, 1).requires_grad_(), features(shape, device, 2)
    labels = regions(shape, device)

    def step() -> int:
        return backward(loss(student, teacher, labels, shape.classes), student)

    step()
    return step
