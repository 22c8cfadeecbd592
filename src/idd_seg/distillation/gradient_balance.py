"""Balancing the terms by the size of their gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from idd_seg.distributed.collectives import sum_over_ranks, world_size
from idd_seg.errors import ConfigError
from idd_seg.ops.validation import require_whole


class GradientBalance(nn.Module):
    r"""Makes a term's weight say how large its gradient is, relative to that of a reference term.

    A term's weight is multiplied by

    .. math:: f = \mathrm{clamp}\big(n_{ref} / n,\; low,\; high\big),

    where n is the moving average of the norm of the unweighted term's gradient with respect to the student's
    parameters. The reference keeps its weight. So `loss.idd_weight=0.5` lets class distances pull half as strongly as
    cross-entropy of weight 1, whatever their units. A change of scale alone: directions stay, and schedules act on top.

    Every measurement costs a backward pass for each term. With several processes the norms of all are averaged, each
    from its own images; the averages are the same everywhere and are saved in checkpoints.

    Args:
        reference: name of the term that the others are measured by.
        every: optimizer steps between measurements; the first step has one.
        momentum: of the moving averages, in [0, 1); the first norm is taken as it is.
        low, high: bounds of the factor: a term that is almost 0 must not be blown up to noise.

    A norm of 0, or one that is not finite, changes no average; a term without an average, or whose reference has
    none, has the factor 1.

    Raises:
        ConfigError: for a value out of range; in `bind`, for a reference that is no term.
    """

    def __init__(
        self, reference: str = "ce", every: int = 20, momentum: float = 0.9, low: float = 1e-4, high: float = 1e4
    ) -> None:
        super().__init__()
        require_whole("balance.every", every, 1, error=ConfigError)
        if not 0 <= momentum < 1:
            raise ConfigError(f"balance.momentum must be in [0, 1), got {momentum}")
        if not 0 < low <= high < float("inf"):
            raise ConfigError(
                f"balance.low and balance.high must be finite, with 0 < low <= high, got {low} and {high}"
            )
        self.reference, self.every, self.momentum = reference, every, momentum
        self.low, self.high = low, high
        self.norms = nn.Module()

    def bind(self, names: Iterable[str]) -> None:
        """Make room for the terms' norms.

        Raises:
            ConfigError: if the reference is not among them.
        """
        known = list(names)
        if self.reference not in known:
            raise ConfigError(f"balance.reference={self.reference} is no term of this run; they are {', '.join(known)}")
        for name in known:
            self.norms.register_buffer(name, torch.zeros(()))

    def measure(self, losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter], step: int) -> None:
        """Move the averages, where `step` is one of measurement, by the gradients of the unweighted losses.

        The losses' graphs stay, and no parameter's `grad` is touched.
        """
        if step % self.every or not losses:
            return
        found = [_gradient_norm(loss, parameters) for loss in losses.values()]
        means = sum_over_ranks(torch.stack(found)) / world_size()
        for name, norm in zip(losses, means.unbind(), strict=True):
            average = self.norms.get_buffer(name)
            moved = torch.where(average > 0, average.lerp(norm.to(average.dtype), 1 - self.momentum), norm)
            average.copy_(torch.where(norm.isfinite() & (norm > 0), moved, average))

    def norm(self, name: str) -> Tensor:
        """Return the moving average of a term's norm; 0 before its first measurement."""
        return self.norms.get_buffer(name)

    def factor(self, name: str) -> Tensor:
        """Return what a term's weight is multiplied by; a tensor, so that nothing waits for the device."""
        ours, reference = self.norm(name), self.norm(self.reference)
        one = torch.ones_like(ours)
        if name == self.reference:
            return one
        known = (ours > 0) & (reference > 0)
        return torch.where(known, (reference / torch.where(known, ours, one)).clamp(self.low, self.high), one)


def _gradient_norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Norm of the gradient with respect to all parameters together; those that the loss does not reach count as 0."""
    if not loss.requires_grad:
        return torch.zeros_like(loss)
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    lengths = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(lengths)) if lengths else torch.zeros_like(loss)
