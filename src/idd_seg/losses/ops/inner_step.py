"""An optimizer step of a network that a term trains by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from idd_seg.distributed.collectives import sum_over_ranks, world_size


def own_step(network: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor]) -> Tensor:
    """One optimizer step of the network on the loss that is called; return the loss before the step.

    The network's parameters have no gradient outside this function, so that no other loss can ever train it. With
    several processes the gradients are averaged over them.
    """
    parameters = list(network.parameters())
    network.train()
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            loss = loss_of()
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
            network.eval()
    _follow(optimizer)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = sum_over_ranks(gradient) / world_size()
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return loss.detach()


def _follow(optimizer: torch.optim.Optimizer) -> None:
    """Bring what the optimizer remembers to where its parameters are, and to their type.

    Lightning restores a term before it moves or casts the module, and then moves the optimizers that it knows.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if key != "step" and isinstance(value, Tensor):  # PyTorch wants the count of steps where it made it
                state[key] = value.to(parameter.device, parameter.dtype)
