"""BatchNorm over the batches of all processes, on a CPU too."""

from __future__ import annotations

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from idd_seg.distributed.collectives import differentiable_sum_over_ranks, world_size


class SyncNorm(_BatchNorm):
    """`nn.SyncBatchNorm` for a CPU, where PyTorch has none: the same parameters, buffers and statistics."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions (N, C, ...), got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape; in training, of mean 0 and deviation 1 over all processes."""
        if not self.training or world_size() == 1:
            return self._after(super().forward(input))
        self._check_input_dim(input)
        others = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        cells = input.new_tensor([input.numel() / input.shape[1]])
        sums = differentiable_sum_over_ranks(torch.cat([input.sum(others), cells]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean.view(shape)
        # Of the differences, not of the squares: those of near equal values would cancel.
        variance = differentiable_sum_over_ranks(centred.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach(), count)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        return self._after(out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape))

    def _after(self, out: Tensor) -> Tensor:
        """Apply what timm's normalisations hold too: dropout and activation, in their order."""
        for module in self.children():
            out = module(out)
        return out

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


def synchronise(network: nn.Module) -> None:
    """Replace every BatchNorm below a module, in place, by one over all processes; the state's names stay."""
    on_gpu = any(p.is_cuda for p in network.parameters()) or torch.cuda.is_available()
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncNorm | nn.SyncBatchNorm):
            setattr(network, name, _for_gpu(child) if on_gpu else _for_cpu(child))
        else:
            synchronise(child)


def _for_gpu(norm: _BatchNorm) -> nn.Module:
    new: nn.Module = convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return new


def _for_cpu(norm: _BatchNorm) -> SyncNorm:
    new = SyncNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    # The same tensors, so that an optimizer that holds them holds the new ones.
    held = (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False), *norm.named_children())
    for name, part in held:
        setattr(new, name, part)
    return new.train(norm.training)
