"""Modules that stay in their precision where what they are a part of is cast."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def moves(change: Change) -> Change:
    """Of a change that `nn.Module.to` makes to a tensor, return what moves it to another device."""
    return lambda x: x.to(change(x.new_empty(0)).device)


def widens(change: Change) -> Change:
    """Of a change that `nn.Module.to` makes to a tensor, return all but what would make its numbers coarser."""

    def changed(x: Tensor) -> Tensor:
        probe = change(x.new_empty(0))
        coarser = x.is_floating_point() and probe.element_size() < x.element_size()
        return x.to(probe.device) if coarser else change(x)

    return changed


class Adjusting(nn.Module):
    """A module that has a say in what `to`, `half` or `cuda`, of itself or of one around it, does to its tensors."""

    def adjusted(self, change: Change) -> Change:
        """Return what is done to parameters and buffers in place of `change`; the place to move other tensors too."""
        return change

    def _apply(self, fn: Change, recurse: bool = True) -> Adjusting:
        return super()._apply(self.adjusted(fn), recurse)  # type: ignore[no-untyped-call, no-any-return]


class Widening(Adjusting):
    """A module that half precision would spoil: `to(torch.bfloat16)` moves it, and leaves its numbers as they are.

    In bfloat16 a moving average would not move any more, nor a small step be one.
    """

    def adjusted(self, change: Change) -> Change:
        return widens(change)
