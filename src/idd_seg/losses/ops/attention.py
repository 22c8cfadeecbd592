"""Maps weighed by channel and by position (CBAM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idd_seg.losses.ops.grid import as_float32, no_autocast
from idd_seg.ops.precision import Widening

REDUCTION = 16  # of the channels, between the two layers that weigh them


class Attention(Widening):
    """Attention over channels, then over positions, in float32 (float64 stays where the parameters are).

    S. Woo et al., "CBAM: convolutional block attention module", ECCV 2018: mean and maximum over the positions pass
    through the same two layers, and their sum is a weight for each channel; mean and maximum over the channels pass
    through one 7 x 7 convolution and a BatchNorm, and give a weight for each position.

    Args:
        width: C of the maps.
        fixed: keep the weights as they were drawn; positions are normalised by the statistics of the batch.
    """

    def __init__(self, width: int, *, fixed: bool = False) -> None:
        super().__init__()
        hidden = max(1, width // REDUCTION)
        self.squeeze, self.expand = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)
        self.fixed = fixed
        if fixed:
            self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        x = as_float32(x)
        with no_autocast(x):
            channels, positions = self.weights(x)
            return x * channels * positions

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of the channels (N, C, 1, 1) and of the positions (N, 1, h, w), 0 to 1."""
        logits = self._of_channels(x.mean((2, 3))) + self._of_channels(x.flatten(2).max(2)[0])
        channels = logits.sigmoid()[..., None, None]
        return channels, self._of_positions(_over_channels(x, channels)).sigmoid()

    def _of_channels(self, pooled: Tensor) -> Tensor:
        weights: Tensor = self.expand(F.relu(self.squeeze(pooled)))
        return weights

    def _of_positions(self, pooled: Tensor) -> Tensor:
        x = self.spatial(pooled)
        if self.fixed and _several(x):
            return F.batch_norm(x, None, None, self.norm.weight, self.norm.bias, training=True)
        return normalised(self.norm, x)


def pooled_attention(x: Tensor) -> Tensor:
    """The same without parameters: the sums of mean and maximum are the weights' logits."""
    x = as_float32(x)
    channels = (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)).sigmoid()
    return x * channels * _over_channels(x, channels).sum(1, keepdim=True).sigmoid()


def normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Apply a BatchNorm, by the running statistics where a channel has a single value: it has no deviation."""
    if norm.training and not _several(x):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    y: Tensor = norm(x)
    return y


def _several(x: Tensor) -> bool:
    return x.shape[0] * x.shape[2] * x.shape[3] > 1


def _over_channels(x: Tensor, channels: Tensor) -> Tensor:
    """Maximum and mean over the channels (N, 2, h, w) of x (N, C, h, w) times the channels' weights (N, C, 1, 1).

    The product is not kept for the gradient.
    """
    with torch.no_grad():
        largest = (x * channels).argmax(1, keepdim=True)
    top = x.gather(1, largest) * channels.flatten(1).gather(1, largest.flatten(1)).view_as(largest)
    mean = torch.bmm(channels[..., 0].mT / x.shape[1], x.flatten(2)).view_as(top)
    return torch.cat([top, mean], dim=1)
