"""BatchNorm folded into the convolution before it: the same function by fewer passes over memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # of the largest logit: rounding of float32 through a hundred layers is ten times smaller


@torch.no_grad()
def fold_batch_norms(network: nn.Module, image: Tensor) -> int:
    """Fold each BatchNorm whose input is a convolution's output into that convolution, in place.

    Which belong together is seen from a forward pass, so that it holds for networks of any origin. What timm computes
    after the normalisation in the same layer (an activation) stays. The network must be in evaluation mode, and can't
    be trained afterwards.

    Args:
        image: (N, 3, H, W), any picture that the network takes.

    Returns:
        The number of layers that were folded.

    Raises:
        ValueError: in training mode.
        RuntimeError: if the folded network computes something else, by more than rounding.
    """
    if network.training:
        raise ValueError("only a network in evaluation mode can be folded: call .eval() first")
    before = network(image).logits
    pairs = _pairs(network, image)
    owners = {id(child): (parent, name) for parent in network.modules() for name, child in parent.named_children()}
    for convolution, norm in pairs:
        # The rest of the layer (timm keeps the activation in it) goes on as it is, without the normalisation.
        fused = fuse_conv_bn_eval(convolution, _plain(norm))
        convolution.weight, convolution.bias = fused.weight, fused.bias
        parent, name = owners[id(norm)]
        setattr(parent, name, _rest(norm))
    _refuse_difference(before, network(image).logits)
    return len(pairs)


def _pairs(network: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return the convolutions whose output goes into a BatchNorm, each with it; layers used twice are left out."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[int, int] = {}

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], module))

    with _hooked(network, before, after):
        network(image)
    norms: dict[int, int] = {}
    for convolution, _ in found:
        norms[id(convolution)] = norms.get(id(convolution), 0) + 1
    return [(c, n) for c, n in found if calls[id(c)] == calls[id(n)] == norms[id(c)] == 1]


@contextmanager
def _hooked(network: nn.Module, before: Any, after: Any) -> Iterator[None]:
    handles = [m.register_forward_pre_hook(before) for m in network.modules()]
    handles += [m.register_forward_hook(after) for m in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Return the normalisation alone, of a layer that may hold an activation too."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, affine=norm.affine).eval()
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    if norm.affine:
        plain.weight, plain.bias = norm.weight, norm.bias
    return plain.to(norm.running_mean.device)  # type: ignore[union-attr]


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a layer does after its normalisation: `drop` and `act` of timm's layers, else nothing."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    kept = [part for part in parts if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)]
    return nn.Sequential(*kept) if kept else nn.Identity()


def _refuse_difference(before: Tensor, after: Tensor) -> None:
    scale = before.abs().max().clamp(min=1e-6)
    worst = float((before - after).abs().max() / scale)
    if not worst <= TOLERANCE:
        raise RuntimeError(
            f"the folded network's logits differ by {worst:.1e} of the largest (at most {TOLERANCE:.0e} is rounding)"
        )
