"""Maps weighed by channel and by position (CBAM), and the connector that brings them to another width."""

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
            mean, top = x.mean((2, 3)), x.amax((2, 3))
            weights = (self._weights(mean) + self._weights(top)).sigmoid()
            x = x * weights[..., None, None]
            return x * self._positions(_over_channels(x)).sigmoid()

    def _weights(self, pooled: Tensor) -> Tensor:
        weights: Tensor = self.expand(F.relu(self.squeeze(pooled)))
        return weights

    def _positions(self, pooled: Tensor) -> Tensor:
        x = self.spatial(pooled)
        if self.fixed and _several(x):
            return F.batch_norm(x, None, None, self.norm.weight, self.norm.bias, training=True)
        return normalised(self.norm, x)


def pooled_attention(x: Tensor) -> Tensor:
    """The same without parameters: the sums of mean and maximum are the weights' logits."""
    x = as_float32(x)
    x = x * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)).sigmoid()
    return x * _over_channels(x).sum(1, keepdim=True).sigmoid()


class Connector(Widening):
    """1 x 1 convolution without bias, and BatchNorm, from the student's width to the teacher's, in float32."""

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_width, teacher_width, 1, bias=False)
        nn.init.normal_(self.conv.weight, std=(2 / teacher_width) ** 0.5)
        self.norm = nn.BatchNorm2d(teacher_width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Cs, h, w) -> (N, Ct, h, w)."""
        x = as_float32(x)
        with no_autocast(x):
            return normalised(self.norm, self.conv(x))


def normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Apply a BatchNorm, by the running statistics where a channel has a single value: it has no deviation."""
    if norm.training and not _several(x):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    y: Tensor = norm(x)
    return y


def _several(x: Tensor) -> bool:
    return x.shape[0] * x.shape[2] * x.shape[3] > 1


def _over_channels(x: Tensor) -> Tensor:
    """Maximum and mean over the channels (N, 2, h, w)."""
    return torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
