"""Random tensors for the tests of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from idd_seg.types import Batch, Outputs


def random_features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_labels(*shape: int, num_classes: int, seed: int = 0, stray: tuple[int, ...] = (255,)) -> Tensor:
    """Labels of `num_classes` classes, about one pixel in six replaced by one of the `stray` values."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, shape, generator=generator)
    values = torch.tensor(stray)[torch.randint(len(stray), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 1 / 6, values, labels)


def descend(
    parameter: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    steps: int = 20,
    lr: float = 0.1,
    others: Iterable[Tensor] = (),
) -> list[float]:
    """Losses along plain Adam steps on `parameter`, and on `others` with it."""
    optimizer = torch.optim.Adam([parameter, *others], lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(parameter)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def outputs_of(logits: Tensor, **features: Tensor) -> Outputs:
    """A network's outputs with these feature maps."""
    return Outputs(logits, features)


def batch_of(labels: Tensor) -> Batch:
    """A batch that has labels alone."""
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, torch.zeros(len(labels), 4), ["x"] * len(labels))


def is_zero_with_gradient(loss: Tensor, student: Tensor) -> bool:
    """Tell whether a loss is exactly 0 and still leads to the student, with a gradient of zeros."""
    loss.backward()
    return loss.item() == 0 and student.grad is not None and not bool(student.grad.any())
