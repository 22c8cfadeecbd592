"""Random tensors for the tests of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


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
